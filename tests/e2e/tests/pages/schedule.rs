//! `ts_replay_schedule` as the tests call it.

use postgres::{Error, GenericClient};
use serde_json::Value;
use tailstream_devkit::event::{now_micros, rfc3339};

use crate::clock::Clock;
use crate::page::{COLUMNS, Content, Place, Row};
use crate::{MINUTE, page};

/// A row, and when it is to be played if it is an event, in microseconds from the first one on.
#[derive(Debug, Clone)]
pub struct Play {
    pub row: Row,
    at: Option<i64>,
}

impl Play {
    #[track_caller]
    fn read(row: &postgres::Row, org: &str) -> Self {
        let play = Self { row: Row::read(row, org), at: row.get(10) };
        assert_eq!(play.at.is_none(), play.row.is_gap(), "{play:?}");
        play
    }

    #[track_caller]
    pub fn at(&self) -> i64 {
        self.at.expect("the time of an event")
    }
}

/// One call; times in microseconds.
#[derive(Debug, Clone)]
pub struct Schedule<'a> {
    pub org: &'a str,
    pub start: i64,
    pub end: i64,
    pub clock: Clock,
    pub after: Option<String>,
    pub filter: Option<Value>,
}

impl<'a> Schedule<'a> {
    /// Everything from a time on, by the clock that is the default.
    pub fn of(org: &'a str, start: i64) -> Self {
        let end = now_micros() + 10 * MINUTE;
        Self { org, start, end, clock: Clock::default(), after: None, filter: None }
    }

    /// The rest behind a row.
    pub fn after(&self, play: &Play) -> Self {
        Self { after: Some(play.row.cursor.clone()), ..self.clone() }
    }

    /// The first so many rows.
    pub fn try_first(&self, client: &mut impl GenericClient, limit: i64) -> Result<Vec<Play>, Error> {
        let sql = format!(
            "SELECT {COLUMNS}, (extract(epoch FROM p.play_at) * 1000000)::bigint
             FROM ts_replay_schedule($1, $2::text::timestamptz, $3::text::timestamptz, speed => $4, max_gap => $5::text::interval,
                 max_rate => $6, after => $7, filter => $8::text::jsonb) p
             LIMIT $9"
        );
        let (start, end) = (rfc3339(self.start), rfc3339(self.end));
        let max_gap = format!("{} microseconds", self.clock.max_gap);
        let (speed, max_rate) = (self.clock.speed, self.clock.max_rate);
        let filter = self.filter.as_ref().map(Value::to_string);
        let rows = client.query(
            &sql,
            &[&self.org, &start, &end, &speed, &max_gap, &max_rate, &self.after, &filter, &limit],
        )?;
        Ok(rows.iter().map(|row| Play::read(row, self.org)).collect())
    }

    pub fn try_plays(&self, client: &mut impl GenericClient) -> Result<Vec<Play>, Error> {
        self.try_first(client, i64::from(page::MOST))
    }

    #[track_caller]
    pub fn plays(&self, client: &mut impl GenericClient) -> Vec<Play> {
        self.try_plays(client).unwrap_or_else(|error| panic!("{self:?}: {error:?}"))
    }
}

/// Which event is played when.
pub fn timeline(plays: &[Play]) -> Vec<(Place, i64)> {
    let event = |play: &Play| match play.row.content {
        Content::Event(place) => Some((place, play.at())),
        Content::Gap { .. } => None,
    };
    plays.iter().filter_map(event).collect()
}
