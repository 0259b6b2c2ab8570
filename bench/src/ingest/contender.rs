//! Ways to store batches of 1,000 events of one org, each over one connection.

use anyhow::{Context, Result};
use postgres::types::Json;
use postgres::{Client, Statement};
use serde_json::value::RawValue;

use crate::backend::Backend;
use crate::load::{COPY_OURS, COPY_SEED, EMPTY_OURS, EMPTY_SEED, ORG, TIER, copy, register, tier_id};
use crate::payload::{BATCH, Parameters, Payload};
use crate::round::{Contender, Measure};
use crate::server::{OURS, SEED, Server};

/// Batches sent before the clock runs: they make the chunks of the whole span, and the session's
/// plans.
const WARM_UP: usize = 8;

const INSERT_ROW: &str = "
    INSERT INTO log_events (created_at, org_id, host, method, path, status, response_time,
        response_size, user_agent, referrer, ip_address, metadata)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
/// One INSERT for each batch, its columns as arrays.
const INSERT_ARRAYS: &str = "
    INSERT INTO tailstream.log_events (created_at, org_id, host, method, path, status, response_time,
        response_size, user_agent, referrer, ip_address)
    SELECT u.created_at, $1, u.host, u.method, u.path, u.status, u.response_time, u.response_size, u.user_agent, u.referrer,
        u.ip_address::inet
    FROM unnest($2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::integer[], $7::integer[], $8::bigint[], $9::text[],
                $10::text[], $11::text[])
        AS u(created_at, host, method, path, status, response_time, response_size, user_agent, referrer, ip_address)
    RETURNING id";
const INSERT_JSON: &str = "
    INSERT INTO log_events (created_at, org_id, host, method, path, status, response_time,
        response_size, user_agent, referrer, ip_address, metadata)
    SELECT (e->>'created_at')::timestamptz, $2, e->>'host', e->>'method', e->>'path',
        (e->>'status')::integer, (e->>'response_time')::integer, (e->>'response_size')::bigint,
        e->>'user_agent', e->>'referrer', (e->>'ip_address')::inet, e
    FROM jsonb_array_elements($1) AS e";
/// How one contender sends its batches.
enum Batches<'a> {
    Json(Vec<Box<RawValue>>),
    Text(Vec<String>),
    Copy(Vec<Vec<u8>>),
    Rows(Vec<Vec<Parameters<'a>>>),
    Statements(Vec<String>),
    Arrays(Vec<Vec<Parameters<'a>>>),
}

/// One way of storing, with its connection, its statement and its batches.
pub struct Store<'a> {
    name: &'static str,
    client: Client,
    backend: Backend,
    statement: Statement,
    empty: &'static str,
    batches: Batches<'a>,
    warm_up: bool,
}

impl<'a> Store<'a> {
    pub fn ts_ingest(server: &Server, payload: Payload<'a>) -> Result<Self> {
        let batches = (0..payload.batches()).map(|batch| payload.json(batch)).collect::<Result<_>>()?;
        let sql = "SELECT accepted FROM ts_ingest($2, $1)";
        Self::ours(server, "ts_ingest", sql, Batches::Json(batches))
    }

    pub fn ts_ingest_ndjson(server: &Server, payload: Payload<'a>) -> Result<Self> {
        let batches = (0..payload.batches()).map(|batch| payload.ndjson(batch)).collect::<Result<_>>()?;
        let sql = "SELECT accepted FROM ts_ingest_ndjson($2, $1)";
        Self::ours(server, "ts_ingest_ndjson", sql, Batches::Text(batches))
    }

    /// COPY of the rows that ts_ingest would store.
    pub fn copy_same(server: &Server, payload: Payload<'a>) -> Result<Self> {
        let tier = tier_id(&mut server.connect(OURS)?, TIER)?;
        let batches = (0..payload.batches()).map(|batch| payload.copy_ours(batch, ORG, tier)).collect();
        Self::ours(server, "COPY into our table", COPY_OURS, Batches::Copy(batches))
    }

    /// INSERTs of 1,000 rows into the view, as text.
    pub fn bulk_insert(server: &Server, payload: Payload<'a>) -> Result<Self> {
        let batches = (0..payload.batches()).map(|batch| payload.insert(batch, ORG)).collect();
        Self::ours(server, "INSERT of 1,000 rows into our view", "SELECT", Batches::Statements(batches))
    }

    /// The same with a prepared statement that takes arrays.
    pub fn array_insert(server: &Server, payload: Payload<'a>) -> Result<Self> {
        let batches = (0..payload.batches()).map(|batch| payload.parameters(batch)).collect::<Result<_>>()?;
        Self::ours(server, "INSERT of arrays into our view", INSERT_ARRAYS, Batches::Arrays(batches))
    }

    pub fn row_inserts(server: &Server, payload: Payload<'a>) -> Result<Self> {
        let batches = (0..payload.batches()).map(|batch| payload.parameters(batch)).collect::<Result<_>>()?;
        // There is one chunk to warm, and single rows take their time.
        let store = Self::seed(server, "single-row INSERTs, seed", INSERT_ROW, Batches::Rows(batches))?;
        Ok(Self { warm_up: false, ..store })
    }

    pub fn insert_json(server: &Server, payload: Payload<'a>) -> Result<Self> {
        let batches = (0..payload.batches()).map(|batch| payload.json(batch)).collect::<Result<_>>()?;
        Self::seed(server, "INSERT from jsonb, seed", INSERT_JSON, Batches::Json(batches))
    }

    pub fn copy_seed(server: &Server, payload: Payload<'a>) -> Result<Self> {
        let batches =
            (0..payload.batches()).map(|batch| payload.copy_seed(batch, ORG)).collect::<Result<_>>()?;
        Self::seed(server, "COPY, seed", COPY_SEED, Batches::Copy(batches))
    }

    fn ours(server: &Server, name: &'static str, sql: &str, batches: Batches<'a>) -> Result<Self> {
        let mut client = server.connect(OURS)?;
        register(&mut client)?;
        Self::new(client, name, sql, EMPTY_OURS, batches)
    }

    fn seed(server: &Server, name: &'static str, sql: &str, batches: Batches<'a>) -> Result<Self> {
        Self::new(server.connect(SEED)?, name, sql, EMPTY_SEED, batches)
    }

    fn new(
        mut client: Client,
        name: &'static str,
        sql: &str,
        empty: &'static str,
        batches: Batches<'a>,
    ) -> Result<Self> {
        let backend = Backend::of(&mut client)?;
        let statement = client.prepare(sql).with_context(|| format!("cannot prepare {name}"))?;
        Ok(Self { name, client, backend, statement, empty, batches, warm_up: true })
    }

    fn count(&self) -> usize {
        match &self.batches {
            Batches::Json(batches) => batches.len(),
            Batches::Text(batches) => batches.len(),
            Batches::Copy(batches) => batches.len(),
            Batches::Rows(batches) | Batches::Arrays(batches) => batches.len(),
            Batches::Statements(batches) => batches.len(),
        }
    }

    fn send(&mut self, batch: usize) -> Result<()> {
        let (client, statement) = (&mut self.client, &self.statement);
        match &self.batches {
            Batches::Json(batches) => drop(client.query(statement, &[&Json(&*batches[batch]), &ORG])?),
            Batches::Text(batches) => drop(client.query(statement, &[&batches[batch], &ORG])?),
            Batches::Copy(batches) => copy(client, statement, &batches[batch])?,
            Batches::Statements(batches) => drop(client.simple_query(&batches[batch])?),
            Batches::Arrays(batches) => insert_arrays(client, statement, &batches[batch])?,
            Batches::Rows(batches) => {
                for row in &batches[batch] {
                    insert_row(client, statement, row)?;
                }
            }
        }
        Ok(())
    }
}

impl Contender for Store<'_> {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn backend(&self) -> Backend {
        self.backend
    }

    fn prepare(&mut self) -> Result<()> {
        self.client.batch_execute(self.empty).context("cannot empty the tables")?;
        let step = (self.count() / WARM_UP).max(1);
        if self.warm_up {
            (0..self.count()).step_by(step).try_for_each(|batch| self.send(batch))?;
        }
        Ok(())
    }

    fn run(&mut self) -> Result<Measure> {
        Measure::of(|| {
            (0..self.count()).try_for_each(|batch| self.send(batch))?;
            Ok((self.count() * BATCH) as u64)
        })
    }
}

fn insert_arrays(client: &mut Client, statement: &Statement, rows: &[Parameters]) -> Result<()> {
    fn column<'a, T>(rows: &'a [Parameters], value: impl Fn(&'a Parameters) -> T) -> Vec<T> {
        rows.iter().map(value).collect()
    }
    client.query(
        statement,
        &[
            &ORG,
            &column(rows, |row| row.created_at),
            &column(rows, |row| &*row.sample.host),
            &column(rows, |row| &*row.sample.method),
            &column(rows, |row| &*row.sample.path),
            &column(rows, |row| i32::from(row.sample.status)),
            &column(rows, |row| row.response_time),
            &column(rows, |row| row.response_size),
            &column(rows, |row| row.sample.user_agent.as_deref()),
            &column(rows, |row| row.sample.referrer.as_deref()),
            &column(rows, |row| row.sample.ip_address.map(|address| address.to_string())),
        ],
    )?;
    Ok(())
}

fn insert_row(client: &mut Client, statement: &Statement, row: &Parameters) -> Result<()> {
    let sample = row.sample;
    client.execute(
        statement,
        &[
            &row.created_at,
            &ORG,
            &sample.host,
            &sample.method,
            &sample.path,
            &i32::from(sample.status),
            &row.response_time,
            &row.response_size,
            &sample.user_agent,
            &sample.referrer,
            &sample.ip_address,
            &row.metadata,
        ],
    )?;
    Ok(())
}
