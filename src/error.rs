//! Every error the extension raises itself, with its SQLSTATE, message, detail and hint.

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::PgLogLevel;
use thiserror::Error;

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, Error)]
pub enum Error {
    #[error("argument \"{0}\" is NULL")]
    NullArgument(&'static str),
    #[error("org id is empty")]
    EmptyOrg,
    #[error("org id has {0} characters")]
    LongOrg(usize),
    #[error("idempotency key has {0} characters")]
    BadKeyLength(usize),
    #[error("on_invalid is \"{0}\"")]
    BadOnInvalid(String),
    #[error("org \"{0}\" is not registered")]
    UnknownOrg(String),
    #[error("permission denied for org \"{0}\"")]
    ForeignOrg(String),
    #[error("permission denied for a session that is bound to org \"{0}\"")]
    Bound(String),
    #[error("permission denied for view log_events in a session that is bound to org \"{0}\"")]
    PlainView(String),
    #[error("replay of org \"{org}\" starts at {start}, before its retention of {retention}")]
    BeforeRetention { org: String, start: String, retention: String, earliest: String },
    #[error("the row is not an event")]
    NotAnEvent,
    #[error("tailstream's tables are not attached")]
    StorageMissing,
    #[error("tailstream is not preloaded")]
    NotPreloaded,
    #[error("database \"{0}\" has no workers")]
    NoWorkers(String),
    #[error("no Redis server is set")]
    NoRedis,
    #[error("Redis: {0}")]
    Redis(String),
    #[error("{0}")]
    Worker(String),
    #[error("{message}")]
    Event { sqlstate: &'static str, message: String, detail: Option<String>, hint: Option<String> },
    #[error("{what}: {source}")]
    Spi { what: &'static str, source: pgrx::spi::Error },
    #[error("unexpected result: {0}")]
    Internal(&'static str),
}

impl Error {
    fn code(&self) -> PgSqlErrorCode {
        use PgSqlErrorCode::*;
        match self {
            Self::NullArgument(_) => ERRCODE_NULL_VALUE_NOT_ALLOWED,
            Self::EmptyOrg | Self::LongOrg(_) | Self::BadKeyLength(_) | Self::BadOnInvalid(_) => {
                ERRCODE_INVALID_PARAMETER_VALUE
            }
            Self::UnknownOrg(_) => ERRCODE_FOREIGN_KEY_VIOLATION,
            Self::ForeignOrg(_) | Self::Bound(_) | Self::PlainView(_) => ERRCODE_INSUFFICIENT_PRIVILEGE,
            Self::BeforeRetention { .. } => ERRCODE_DATETIME_FIELD_OVERFLOW,
            Self::NotAnEvent => ERRCODE_DATATYPE_MISMATCH,
            Self::StorageMissing | Self::NotPreloaded | Self::NoWorkers(_) | Self::NoRedis => {
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE
            }
            Self::Redis(_) => ERRCODE_CONNECTION_FAILURE,
            Self::Worker(_) => ERRCODE_INTERNAL_ERROR,
            Self::Event { sqlstate, .. } => event_code(sqlstate),
            Self::Spi { .. } | Self::Internal(_) => ERRCODE_INTERNAL_ERROR,
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::Event { detail, .. } => detail.clone(),
            Self::NotAnEvent => {
                Some("It needs the columns of tailstream.log_events, created_at at the least.".into())
            }
            Self::LongOrg(_) => Some("At most 255 characters.".into()),
            Self::ForeignOrg(_) => {
                Some("The session is bound to another org by the setting tailstream.org.".into())
            }
            _ => None,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Event { hint, .. } => hint.clone(),
            Self::BadKeyLength(_) => Some("A key has 1 to 255 characters; NULL means none.".into()),
            Self::BadOnInvalid(_) => Some("It is 'error' or 'quarantine'.".into()),
            Self::UnknownOrg(_) => {
                Some("Register it with ts_set_org_tier(), or turn tailstream.auto_register_orgs on.".into())
            }
            Self::PlainView(_) => Some(
                "Read tailstream.log_events or ts_replay() themselves, not through another view or function; \
                 and have tailstream in shared_preload_libraries."
                    .into(),
            ),
            Self::BeforeRetention { earliest, .. } => Some(format!("The earliest permitted start is {earliest}.")),
            Self::NotPreloaded => Some(
                "Set shared_preload_libraries = 'timescaledb,tailstream,pg_cron' and restart the server.".into(),
            ),
            Self::NoWorkers(_) => {
                Some("Add it to tailstream.databases and reload the configuration.".into())
            }
            Self::NoRedis => Some("Set tailstream.redis_url and reload the configuration.".into()),
            Self::StorageMissing => {
                Some("After timescaledb_post_restore() run: SELECT tailstream.attach_storage();".into())
            }
            _ => None,
        }
    }

    /// Raises the error in PostgreSQL.
    pub fn raise(self) -> ! {
        let mut report = ErrorReport::new(self.code(), self.to_string(), "tailstream");
        if let Some(detail) = self.detail() {
            report = report.set_detail(detail);
        }
        if let Some(hint) = self.hint() {
            report = report.set_hint(hint);
        }
        report.report(PgLogLevel::ERROR);
        // An ERROR does not return; the process would be in an undefined state if it did.
        std::process::abort()
    }
}

fn event_code(sqlstate: &str) -> PgSqlErrorCode {
    use PgSqlErrorCode::*;
    match sqlstate {
        "22001" => ERRCODE_STRING_DATA_RIGHT_TRUNCATION,
        "22003" => ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
        "22007" => ERRCODE_INVALID_DATETIME_FORMAT,
        "22008" => ERRCODE_DATETIME_FIELD_OVERFLOW,
        "22030" => ERRCODE_DUPLICATE_JSON_OBJECT_KEY_VALUE,
        "22032" => ERRCODE_INVALID_JSON_TEXT,
        "22P02" => ERRCODE_INVALID_TEXT_REPRESENTATION,
        "22P05" => ERRCODE_UNTRANSLATABLE_CHARACTER,
        _ => ERRCODE_INVALID_PARAMETER_VALUE,
    }
}

/// Puts what was being done in front of an SPI error.
pub fn spi(what: &'static str) -> impl FnOnce(pgrx::spi::Error) -> Error {
    move |source| Error::Spi { what, source }
}

/// The value, or the error raised in PostgreSQL: for the thin wrappers that PostgreSQL calls.
pub fn report<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|error| error.raise())
}
