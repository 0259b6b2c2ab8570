//! One event as the column values of a row of `tailstream.events`.

use pgrx::pg_sys;

use crate::error::Result;
use crate::event::{Event, Inet, STORED_V4, STORED_V6};
use crate::pg::time::to_postgres_time;
use crate::storage::events::{COLUMNS, jsonb};

const HEADER: usize = size_of::<u32>();

/// The column values of one row. Their bytes are in `space`, which the next row reuses.
pub struct EventRow {
    pub values: [pg_sys::Datum; COLUMNS.len()],
    pub nulls: [bool; COLUMNS.len()],
    space: Vec<u64>,
    used: usize,
}

impl EventRow {
    /// An empty row.
    pub fn new() -> Self {
        Self { values: [pg_sys::Datum::null(); _], nulls: [true; _], space: Vec::new(), used: 0 }
    }

    /// Replaces the values by those of an event.
    pub fn fill(&mut self, id: i64, org: &str, tier: i16, event: &Event) -> Result<()> {
        self.reserve(org, event);
        self.set(0, pg_sys::Datum::from(id));
        self.set(1, pg_sys::Datum::from(to_postgres_time(event.created_at)));
        self.set_text(2, Some(org));
        self.set_text(3, event.host.as_deref());
        self.set_text(4, Some(&event.method));
        self.set_text(5, Some(&event.path));
        self.set(6, pg_sys::Datum::from(event.status));
        self.set_value(7, event.response_time);
        self.set_value(8, event.response_size);
        self.set_text(9, event.user_agent.as_deref());
        self.set_text(10, event.referrer.as_deref());
        self.set_inet(11, event.ip_address);
        let metadata = event.metadata.as_deref().map(jsonb).transpose()?;
        self.set_datum(12, metadata);
        self.set(13, pg_sys::Datum::from(tier));
        Ok(())
    }

    /// Reserves room for all values: they must not move once one is set.
    fn reserve(&mut self, org: &str, event: &Event) {
        let texts = [
            event.host.as_deref(),
            Some(&*event.method),
            Some(&*event.path),
            event.user_agent.as_deref(),
            event.referrer.as_deref(),
            Some(org),
        ];
        let bytes: usize = texts.iter().flatten().map(|text| text.len()).sum();
        let words = bytes / size_of::<u64>() + COLUMNS.len() * 4;
        self.used = 0;
        if self.space.len() < words {
            self.space.resize(words.next_power_of_two(), 0);
        }
    }

    fn set(&mut self, column: usize, value: pg_sys::Datum) {
        self.values[column] = value;
        self.nulls[column] = false;
    }

    fn set_datum(&mut self, column: usize, value: Option<pg_sys::Datum>) {
        match value {
            Some(value) => self.set(column, value),
            None => self.nulls[column] = true,
        }
    }

    fn set_value<T: Into<pg_sys::Datum>>(&mut self, column: usize, value: Option<T>) {
        self.set_datum(column, value.map(Into::into));
    }

    fn set_text(&mut self, column: usize, text: Option<&str>) {
        let datum = text.map(|text| self.varlena(&[text.as_bytes()]));
        self.set_datum(column, datum);
    }

    fn set_inet(&mut self, column: usize, address: Option<Inet>) {
        let datum = address.map(|address| match address {
            Inet::V4(bytes, prefix) => self.varlena(&[&[STORED_V4, prefix], &bytes]),
            Inet::V6(bytes, prefix) => self.varlena(&[&[STORED_V6, prefix], &bytes]),
        });
        self.set_datum(column, datum);
    }

    /// Writes a value of variable length with a four-byte header.
    fn varlena(&mut self, parts: &[&[u8]]) -> pg_sys::Datum {
        let length = HEADER + parts.iter().map(|part| part.len()).sum::<usize>();
        let words = length.div_ceil(size_of::<u64>());
        let place = &mut self.space[self.used..self.used + words];
        self.used += words;
        let start = place.as_mut_ptr().cast::<u8>();
        // SAFETY: `place` has room for header and parts and is aligned for the header.
        unsafe {
            pgrx::varlena::set_varsize_4b(start.cast(), length as i32);
            let mut end = start.add(HEADER);
            for part in parts {
                std::ptr::copy_nonoverlapping(part.as_ptr(), end, part.len());
                end = end.add(part.len());
            }
        }
        pg_sys::Datum::from(start)
    }
}
