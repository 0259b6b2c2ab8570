//! All errors that the extension raises, with their SQLSTATEs, messages, details and hints.

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
    #[error("column \"org_id\" of view log_events is NULL")]
    NoOrg,
    #[error("COPY into view log_events while session_replication_role is \"replica\"")]
    CopyWithoutTriggers,
    #[error("permission denied for view log_events")]
    NotReader,
    #[error("a trigger on tailstream.{0} has suppressed or changed a row")]
    RowNotStored(&'static str),
    #[error("idempotency key has {0} characters")]
    BadKeyLength(usize),
    #[error("idempotency key \"{key}\" was used for other events")]
    KeyReused { key: String, batch_id: i64 },
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
    #[error("filter: {0}")]
    BadFilter(String),
    #[error("{what} is {value}")]
    BadArgument { what: &'static str, value: String, hint: &'static str },
    #[error("token is not valid")]
    BadToken,
    #[error("token belongs to another org")]
    ForeignToken,
    #[error("token is for direction \"{0}\"")]
    OtherDirection(&'static str),
    #[error("token is for order \"{0}\"")]
    OtherOrder(&'static str),
    #[error("token refers to a position that the database does not have")]
    DatabaseRewound,
    #[error("token refers to a position that the standby has not replayed")]
    StandbyBehind,
    #[error("cursor \"{0}\" does not exist")]
    NoCursor(String),
    #[error("cursor \"{0}\" has expired")]
    ExpiredCursor(String),
    #[error("cursor \"{name}\" of org \"{org}\" exists already")]
    CursorExists { name: String, org: String },
    #[error("org \"{org}\" has {most} cursors")]
    TooManyCursors { org: String, most: i64 },
    #[error("several orgs have a cursor \"{0}\"")]
    AmbiguousCursor(String),
    #[error("cursor \"{0}\" is in use")]
    CursorInUse(String),
    #[error("token was not fetched from cursor \"{0}\"")]
    OtherCursor(String),
    #[error("cursor \"{0}\" was moved since the token was fetched")]
    CursorMoved(String),
    #[error("a durable cursor cannot be used on a standby")]
    OnStandby,
    #[error("connection to client is lost")]
    ClientGone,
    #[error("a fetch cannot wait under isolation level {0}")]
    CannotWait(&'static str),
    #[error("the row is not an event")]
    NotAnEvent,
    #[error("created_at is infinite")]
    InfiniteTime,
    #[error("tailstream's tables are not attached")]
    StorageMissing,
    #[error("{0} does not exist")]
    MissingTier(String),
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
            Self::NoOrg => ERRCODE_NOT_NULL_VIOLATION,
            Self::RowNotStored(_) => ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION,
            Self::EmptyOrg
            | Self::LongOrg(_)
            | Self::BadKeyLength(_)
            | Self::BadOnInvalid(_)
            | Self::BadFilter(_)
            | Self::BadArgument { .. }
            | Self::BadToken
            | Self::OtherDirection(_)
            | Self::OtherOrder(_)
            | Self::DatabaseRewound
            | Self::AmbiguousCursor(_)
            | Self::OtherCursor(_) => ERRCODE_INVALID_PARAMETER_VALUE,
            Self::NoCursor(_) | Self::ExpiredCursor(_) => ERRCODE_UNDEFINED_OBJECT,
            Self::CursorExists { .. } => ERRCODE_DUPLICATE_OBJECT,
            Self::TooManyCursors { .. } => ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
            Self::CursorInUse(_) => ERRCODE_LOCK_NOT_AVAILABLE,
            Self::CannotWait(_) => ERRCODE_INVALID_TRANSACTION_STATE,
            Self::OnStandby => ERRCODE_READ_ONLY_SQL_TRANSACTION,
            // Not unique_violation: clients take that for "already stored", which is wrong here.
            Self::KeyReused { .. } => ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION,
            Self::UnknownOrg(_) => ERRCODE_FOREIGN_KEY_VIOLATION,
            Self::ForeignOrg(_)
            | Self::Bound(_)
            | Self::PlainView(_)
            | Self::NotReader
            | Self::ForeignToken => ERRCODE_INSUFFICIENT_PRIVILEGE,
            Self::BeforeRetention { .. } | Self::InfiniteTime => ERRCODE_DATETIME_FIELD_OVERFLOW,
            Self::NotAnEvent => ERRCODE_DATATYPE_MISMATCH,
            Self::StorageMissing
            | Self::MissingTier(_)
            | Self::CopyWithoutTriggers
            | Self::NotPreloaded
            | Self::NoWorkers(_)
            | Self::NoRedis
            | Self::StandbyBehind
            | Self::CursorMoved(_) => ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            Self::Redis(_) | Self::ClientGone => ERRCODE_CONNECTION_FAILURE,
            Self::Worker(_) => ERRCODE_INTERNAL_ERROR,
            Self::Event { sqlstate, .. } => event_code(sqlstate),
            Self::Spi { .. } | Self::Internal(_) => ERRCODE_INTERNAL_ERROR,
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::Event { detail, .. } => detail.clone(),
            Self::NotAnEvent => {
                Some("The row must have the columns of tailstream.log_events, at least created_at.".into())
            }
            Self::KeyReused { batch_id, .. } => Some(format!(
                "Batch {batch_id} was stored under this key, and its events differ from these, which were not stored."
            )),
            Self::InfiniteTime => Some("JSON cannot represent an infinite time.".into()),
            Self::LongOrg(_) => Some("At most 255 characters.".into()),
            Self::ForeignOrg(_) => {
                Some("The session is bound to another org by the setting tailstream.org.".into())
            }
            Self::RowNotStored(_) => Some(
                "A batch is stored completely, as sent and as recorded in the ledger, or not at all.".into(),
            ),
            Self::BadToken => {
                Some("The token was changed or truncated, or it was made by another database.".into())
            }
            Self::ExpiredCursor(_) => {
                Some("The cursor was not used for longer than the setting tailstream.cursor_ttl.".into())
            }
            _ => None,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Event { hint, .. } => hint.clone(),
            Self::InfiniteTime => Some("Give the time at which the event happened.".into()),
            Self::NoOrg => Some("Specify the org, or bind the role to one.".into()),
            Self::CopyWithoutTriggers => {
                Some("SET session_replication_role = origin, or use INSERT or ts_ingest().".into())
            }
            Self::NotReader => Some("Reading requires the privileges of the role tailstream_reader.".into()),
            Self::RowNotStored(_) => Some(
                "A trigger may not return NULL, and may not change id, org_id, created_at or tier of an event.".into(),
            ),
            Self::BadKeyLength(_) => Some("A key has 1 to 255 characters; NULL means none.".into()),
            Self::KeyReused { .. } => {
                Some("Use a different key for every batch, and repeat a batch byte for byte.".into())
            }
            Self::BadOnInvalid(_) => Some("It is 'error' or 'quarantine'.".into()),
            Self::UnknownOrg(_) => {
                Some("Register it with ts_set_org_tier(), or turn tailstream.auto_register_orgs on.".into())
            }
            Self::PlainView(_) => Some(
                "Read tailstream.log_events or ts_replay() themselves, not through another view or function; \
                 and have tailstream in shared_preload_libraries."
                    .into(),
            ),
            Self::BadFilter(_) => Some(
                "Keys: status (404, \"5xx\" or a list), method, host, path (prefix), metadata (object)."
                    .into(),
            ),
            Self::BadArgument { hint, .. } => Some((*hint).into()),
            Self::OtherDirection(_) => Some("Continue in the direction in which the token was returned.".into()),
            Self::OtherOrder(_) => Some("Continue in the order in which the token was returned.".into()),
            Self::NoCursor(_) | Self::ExpiredCursor(_) => Some("Create a cursor with ts_cursor_create().".into()),
            Self::CursorExists { .. } => Some("ts_cursor_seek() moves a cursor, ts_cursor_drop() removes it.".into()),
            Self::TooManyCursors { .. } => {
                Some("Drop some with ts_cursor_drop(), or raise tailstream.max_cursors_per_org.".into())
            }
            Self::AmbiguousCursor(_) => Some("Name the org: org => '…'.".into()),
            Self::DatabaseRewound => {
                Some("The database was restored to an earlier point in time, or a failover lost its last commits. Fetch again, or start from the beginning.".into())
            }
            Self::StandbyBehind => Some("Try again, or query the primary.".into()),
            Self::CursorMoved(_) => Some("Fetch again.".into()),
            Self::OtherCursor(_) => Some("Acknowledge with the column \"cursor\" of a row that was fetched from it.".into()),
            Self::OnStandby => Some("Use it on the primary; ts_replay_page() works here.".into()),
            Self::CannotWait(_) => Some("Use READ COMMITTED, or no timeout.".into()),
            Self::BeforeRetention { earliest, .. } => Some(format!("The earliest permitted start is {earliest}.")),
            Self::MissingTier(_) => Some(
                "Insert it into tailstream.tiers again; SELECT * FROM ts_health() says what else a restore did not bring.".into(),
            ),
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

/// Converts an SPI error; `what` names the operation.
pub fn spi(what: &'static str) -> impl FnOnce(pgrx::spi::Error) -> Error {
    move |source| Error::Spi { what, source }
}

/// Returns the value, or raises the error in PostgreSQL. For the functions that PostgreSQL calls.
pub fn report<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|error| error.raise())
}
