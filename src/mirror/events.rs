//! Reads the events of batches as entries of a stream.

use core::ops::ControlFlow;

use super::entry::Entry;
use super::server::MAX_BYTES;
use crate::batch_reader::{self, Position, Sink, together};
use crate::error::Result;
use crate::event::{EventColumns, encode, encoded_length};
use crate::pg::streaming::SlotRow;
use crate::pg::time::to_unix_time;
use crate::storage::events::{inet, jsonb_text};
use crate::storage::id;

/// Limits how many bytes of JSON are read at once. A single event may be larger.
const MAX_GATHERED: usize = 4 * MAX_BYTES;

/// Reads the events of a batch with offsets from `offset` up to, not including, `end`, as entries in their order.
/// Lowers `end` if the entries would be too large together. Events that no longer exist are left out, and so are events
/// with more than `most` bytes of JSON.
pub fn read(org: &str, position: &Position, offset: i32, end: &mut i32, most: usize) -> Result<Entries> {
    loop {
        let entries = Entries::default();
        let mut gathered = Gathered { position, entries, most, single: *end - offset <= 1, bytes: 0 };
        batch_reader::read(org, position, offset..*end, &mut gathered)?;
        if !gathered.is_too_large() {
            let mut entries = gathered.entries;
            entries.entries.sort_unstable_by_key(|entry| entry.event_id);
            return Ok(entries);
        }
        *end = offset + (*end - offset) / 2;
    }
}

/// Entries of events of one batch.
#[derive(Default)]
pub struct Entries {
    pub entries: Vec<Entry>,
    /// The ids of events that are too large for an entry, and the lengths of their JSON in bytes.
    pub oversized: Vec<(i64, usize)>,
}

/// Reads the entries of whole small batches together. The result is `None` for a batch that has to be read separately,
/// for example because an event has more than `most` bytes of JSON.
pub fn read_together(positions: &[Position], most: usize) -> Result<Vec<Option<Vec<Entry>>>> {
    let mut entries: Vec<Vec<Entry>> =
        positions.iter().map(|position| Vec::with_capacity(position.events as usize)).collect();
    let (mut bytes, mut fits) = (0, vec![true; positions.len()]);
    let complete = together::read(positions, |batch, row| {
        match entry(row, &positions[batch], most) {
            Ok(entry) => {
                bytes += entry.data.len();
                entries[batch].push(entry);
            }
            Err(_) => fits[batch] = false,
        }
        if bytes > MAX_GATHERED { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    let complete = complete.into_iter().zip(fits).map(|(complete, fits)| complete && fits);
    let sorted = |(mut entries, complete): (Vec<Entry>, bool)| {
        entries.sort_unstable_by_key(|entry| entry.event_id);
        complete.then_some(entries)
    };
    Ok(entries.into_iter().zip(complete).map(sorted).collect())
}

/// Collects entries while they are read.
struct Gathered<'a> {
    position: &'a Position,
    entries: Entries,
    /// The largest permitted length of an entry's JSON in bytes.
    most: usize,
    /// Only one event is read. `MAX_GATHERED` does not apply to it.
    single: bool,
    bytes: usize,
}

impl Gathered<'_> {
    fn is_too_large(&self) -> bool {
        self.bytes > MAX_GATHERED && !self.single
    }
}

impl Sink for Gathered<'_> {
    fn take(&mut self, row: &SlotRow<'_>) -> bool {
        match entry(row, self.position, self.most) {
            Ok(entry) => {
                self.bytes += entry.data.len();
                self.entries.entries.push(entry);
            }
            Err(oversized) => self.entries.oversized.push(oversized),
        }
        !self.is_too_large()
    }

    fn clear(&mut self) {
        self.entries = Entries::default();
        self.bytes = 0;
    }
}

/// The largest number of bytes that one byte of text needs in JSON.
const LONGEST_ESCAPE: usize = 6;

/// Makes the entry of an event. If its JSON has more than `most` bytes, returns the event id and a lower bound of that
/// length instead. Such JSON is not built if its length is known before, because it may not fit into memory.
fn entry(row: &SlotRow<'_>, position: &Position, most: usize) -> core::result::Result<Entry, (i64, usize)> {
    let event_id = row.int8(0).unwrap_or_default();
    let created_at = to_unix_time(row.int8(1).unwrap_or_default());
    let columns = EventColumns {
        created_at,
        host: row.text(3),
        method: row.text(4),
        path: row.text(5),
        status: row.int4(6),
        response_time: row.int4(7),
        response_size: row.int8(8),
        user_agent: row.text(9),
        referrer: row.text(10),
        // SAFETY: column 11 of tailstream.events is an inet.
        ip_address: row.datum(11).and_then(|value| unsafe { inet(value) }),
        // SAFETY: column 12 is a jsonb.
        metadata: row.datum(12).and_then(|value| unsafe { jsonb_text(value) }),
    };
    let texts = [columns.host, columns.method, columns.path, columns.user_agent, columns.referrer];
    let texts = || texts.into_iter().flatten();
    let metadata = columns.metadata.map_or(0, str::len);
    if LONGEST_ESCAPE * texts().map(str::len).sum::<usize>() + metadata > most {
        let bytes = encoded_length(texts()) + metadata;
        if bytes > most {
            return Err((event_id, bytes));
        }
    }
    let data = encode(&columns);
    if data.len() > most {
        return Err((event_id, data.len()));
    }
    Ok(Entry {
        ms: position.ms,
        seq: position.stream_seq + i64::from(id::offset_of(event_id)),
        event_id,
        data,
    })
}
