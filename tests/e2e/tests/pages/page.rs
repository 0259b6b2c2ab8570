//! `ts_replay_page` as the tests call it, and the rows that it has in common with `ts_replay_schedule`.

use postgres::{Error, GenericClient};
use serde_json::Value;
use tailstream_devkit::event::rfc3339;

/// The largest page.
pub const MOST: i32 = 100_000;

/// Characters of a token.
const LONGEST: usize = 104;

/// What `content` reads, of a FROM item `p`.
pub const COLUMNS: &str = "p.org_id, p.cursor, p.kind, p.id, (extract(epoch FROM p.created_at) * 1000000)::bigint,
    (extract(epoch FROM p.gap_from) * 1000000)::bigint, (extract(epoch FROM p.gap_to) * 1000000)::bigint, p.gap_reason,
    ts_event(p)::text,
    num_nonnulls(p.id, p.created_at, p.host, p.method, p.path, p.status, p.response_time, p.response_size, p.user_agent,
                 p.referrer, p.ip_address, p.metadata)";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Forward,
    Backward,
}

impl Direction {
    pub const BOTH: [Self; 2] = [Self::Forward, Self::Backward];

    pub fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Backward => "backward",
        }
    }

    pub fn turned(self) -> Self {
        match self {
            Self::Forward => Self::Backward,
            Self::Backward => Self::Forward,
        }
    }
}

/// An event's place among those of its org: its time in microseconds, and its id.
pub type Place = (i64, i64);

/// What a row stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Event(Place),
    Gap { from: i64, to: i64, reason: String },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub content: Content,
    pub cursor: String,
}

impl Row {
    /// From the columns of `COLUMNS`; fails if they do not go together.
    #[track_caller]
    pub fn read(row: &postgres::Row, org: &str) -> Self {
        assert_eq!(row.get::<_, &str>(0), org, "the org of a row");
        let cursor: String = row.get(1);
        let proper = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        assert!(cursor.len() <= LONGEST && cursor.chars().all(proper), "a token of odd form: {cursor:?}");
        Self { content: content(row), cursor }
    }

    #[track_caller]
    pub fn place(&self) -> Place {
        match &self.content {
            Content::Event(place) => *place,
            gap => panic!("no event: {gap:?}"),
        }
    }

    pub fn is_gap(&self) -> bool {
        matches!(self.content, Content::Gap { .. })
    }
}

#[track_caller]
fn content(row: &postgres::Row) -> Content {
    let kind: &str = row.get(2);
    let gap: (Option<i64>, Option<i64>, Option<String>) = (row.get(5), row.get(6), row.get(7));
    let (json, columns): (Option<&str>, i32) = (row.get(8), row.get(9));
    match kind {
        "event" => {
            assert_eq!(gap, (None, None, None), "an event with a gap");
            assert!(json.is_some(), "an event without JSON");
            Content::Event((row.get(4), row.get(3)))
        }
        "gap" => {
            assert_eq!((json, columns), (None, 0), "a gap with columns of an event");
            let (Some(from), Some(to), Some(reason)) = gap else { panic!("a gap with holes: {gap:?}") };
            assert!(from <= to, "a gap from {from} to {to}");
            Content::Gap { from, to, reason }
        }
        other => panic!("a row of kind {other:?}"),
    }
}

/// One call; times in microseconds.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    pub org: &'a str,
    pub start: Option<i64>,
    pub end: Option<i64>,
    pub after: Option<String>,
    pub size: i32,
    pub filter: Option<Value>,
    pub direction: Direction,
}

impl<'a> Request<'a> {
    /// Everything of an org.
    pub fn of(org: &'a str, direction: Direction) -> Self {
        Self { org, start: None, end: None, after: None, size: MOST, filter: None, direction }
    }

    /// The same page behind another row.
    pub fn after(&self, row: &Row) -> Self {
        Self { after: Some(row.cursor.clone()), ..self.clone() }
    }

    pub fn size(&self, size: i32) -> Self {
        Self { size, ..self.clone() }
    }

    pub fn try_page(&self, client: &mut impl GenericClient) -> Result<Vec<Row>, Error> {
        let sql = format!(
            "SELECT {COLUMNS} FROM ts_replay_page($1, $2::text::timestamptz, $3::text::timestamptz, after => $4,
                 page_size => $5, filter => $6::text::jsonb, direction => $7) p"
        );
        let (start, end) = (self.start.map(rfc3339), self.end.map(rfc3339));
        let filter = self.filter.as_ref().map(Value::to_string);
        let direction = self.direction.name();
        let rows =
            client.query(&sql, &[&self.org, &start, &end, &self.after, &self.size, &filter, &direction])?;
        Ok(rows.iter().map(|row| Row::read(row, self.org)).collect())
    }

    #[track_caller]
    pub fn page(&self, client: &mut impl GenericClient) -> Vec<Row> {
        self.try_page(client).unwrap_or_else(|error| panic!("{self:?}: {error:?}"))
    }

    /// Pages of this size, one behind the other, until one is not full.
    #[track_caller]
    pub fn all_pages(&self, client: &mut impl GenericClient) -> Vec<Row> {
        let mut request = self.clone();
        let mut rows = Vec::new();
        loop {
            let page = request.page(client);
            let events = page.iter().filter(|row| !row.is_gap()).count();
            assert!(events <= self.size as usize, "{events} events on a page of {}", self.size);
            request.after = page.last().map(|row| row.cursor.clone()).or(request.after);
            rows.extend(page);
            if events < self.size as usize {
                return rows;
            }
        }
    }
}

/// The places of rows that are all events.
#[track_caller]
pub fn places(rows: &[Row]) -> Vec<Place> {
    rows.iter().map(Row::place).collect()
}
