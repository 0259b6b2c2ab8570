//! Pages in commit order: by position, and within a batch by offset.

use std::collections::BTreeMap;

use pgrx::{PgMemoryContexts, pg_sys};

use super::gap;
use super::positions;
use super::request::{self, Next, PageRequest};
use super::rows::{Formed, Gap, Reason, Rows};
use crate::batch_reader::{self, Position, Sink};
use crate::error::Result;
use crate::pg::streaming::SlotRow;
use crate::pg::time;
use crate::pg::time::micros;
use crate::replay::token::Token;
use crate::storage::id;

/// Number of positions in the first read. It doubles with each read, because one batch may have enough events.
const FIRST_PAGE: usize = 4;
const MAX_PAGE: usize = 256;
/// Fewest events of a batch that are read together with a filter, which may reject most of them.
const MIN_WINDOW: i32 = 4_096;
/// Positions younger than this cannot have been purged. In milliseconds.
const KEPT: i64 = 60_000;

/// The result of reading.
#[derive(Debug, Clone, Copy)]
pub struct Read {
    pub events: usize,
    /// Events that were read, before filtering.
    pub seen: u64,
    pub next: Next,
}

/// Adds the next events in commit order, and gap rows between them.
pub fn read(request: &PageRequest<'_>, from: Next, limit: usize, rows: &mut Rows) -> Result<Read> {
    let mut reader =
        Reader { request, limit, rows, read: Read { events: 0, seen: 0, next: from }, lost: None };
    let mut page = FIRST_PAGE;
    let mut positions = positions::next(request, reader.read.next, page)?;
    if positions.first().is_none_or(|first| first.seq != from.seq) {
        reader.skip_purged_positions()?;
    }
    loop {
        for position in &positions {
            // The snapshot of the calling query may be too old to show batches with new positions.
            request.with_snapshot(|| reader.batch(position))?;
            if reader.read.events >= limit {
                return Ok(reader.finish());
            }
        }
        if positions.len() < page {
            return Ok(reader.finish());
        }
        page = (page * 2).min(MAX_PAGE);
        positions = positions::next(request, reader.read.next, page)?;
    }
}

struct Reader<'a, 'b> {
    request: &'a PageRequest<'b>,
    limit: usize,
    rows: &'a mut Rows,
    read: Read,
    /// The loss since the last row.
    lost: Option<Gap>,
}

impl Reader<'_, '_> {
    /// Positions are kept for longer than any event. A reader before the first remaining position may have lost events, and it is
    /// not known which.
    fn skip_purged_positions(&mut self) -> Result<()> {
        let next = self.read.next;
        if next.placed_ms >= time::now() / 1_000 - KEPT {
            return Ok(());
        }
        let known = gap::first_known_position(next.seq, next.placed_ms)?;
        if known > next.seq {
            let first = gap::first_behind(self.request.org, next.placed_ms)?;
            let from = first.max(self.request.accounted_until).max(self.request.start);
            let to = self.request.lost_before;
            self.lose(Gap { from: from.min(to), to, reason: Reason::Retention });
            self.read.next = Next { seq: known, offset: 0, ..next };
        }
        Ok(())
    }

    /// Reads events of one batch, to its end or to the limit.
    fn batch(&mut self, position: &Position) -> Result<()> {
        let mut offset = if position.seq == self.read.next.seq { self.read.next.offset } else { 0 };
        while offset < position.events && self.read.events < self.limit {
            let wanted = i32::try_from(self.limit - self.read.events).unwrap_or(i32::MAX);
            let window = if self.request.filter.is_empty() { wanted } else { wanted.max(MIN_WINDOW) };
            let end = position.events.min(offset.saturating_add(window));
            offset = self.window(position, offset, end)?;
        }
        let (seq, offset) =
            if offset < position.events { (position.seq, offset) } else { (position.seq + 1, 0) };
        self.read.next = Next { seq, offset, placed_ms: position.ms };
        Ok(())
    }

    /// Reads a range of offsets of a batch. Returns the offset at which it stopped.
    fn window(&mut self, position: &Position, start: i32, end: i32) -> Result<i32> {
        let (first, last) = (micros(position.first), micros(position.last));
        let request = self.request;
        if last < request.start || first >= request.end {
            return Ok(end);
        }
        // Positions are kept for longer than events. Looking for each expired batch would take long.
        if last < request.cutoff {
            if !self.is_excused(position, last) {
                let from = first.max(request.start).max(request.accounted_until).min(last);
                self.lose(Gap { from, to: request.cutoff, reason: Reason::Retention });
            }
            return Ok(end);
        }
        let mut window = Window {
            reader: self,
            position,
            next: start,
            early: BTreeMap::new(),
            memory: PgMemoryContexts::new("tailstream page"),
            scratch: PgMemoryContexts::new("tailstream row"),
        };
        batch_reader::read(request.org, position, start..end, &mut window)?;
        window.finish(end)
    }

    /// Records the loss of an event that is no longer in the table.
    fn lose_missing(&mut self, position: &Position) -> Result<()> {
        let request = self.request;
        let (first, last) = (micros(position.first), micros(position.last));
        if self.is_excused(position, last) {
            return Ok(());
        }
        let from = first.max(request.start).max(request.accounted_until).min(last);
        // The purge may have dropped chunks while this page was read.
        let cutoff = request::cutoff(request.org)?;
        let lost_before = request.lost_before.max(cutoff);
        let (to, reason) = if first < lost_before {
            (if first < cutoff { cutoff } else { lost_before }, Reason::Retention)
        } else {
            (last.saturating_add(1), Reason::Deleted)
        };
        self.lose(Gap { from: from.min(to), to, reason });
        Ok(())
    }

    /// Whether the loss of an event of this time in this batch is already accounted for, so that it is not reported.
    fn is_excused(&self, position: &Position, created_at: i64) -> bool {
        position.seq < self.request.accounted_until_seq && created_at < self.request.accounted_until
    }

    fn lose(&mut self, gap: Gap) {
        self.lost = Some(match self.lost {
            None => gap,
            Some(lost) => Gap { from: lost.from.min(gap.from), to: lost.to.max(gap.to), reason: lost.reason },
        });
    }

    fn tell_lost(&mut self, next: Next) {
        if let Some(gap) = self.lost.take() {
            self.rows.gap(gap, &self.request.token(next.place()));
        }
    }

    fn finish(mut self) -> Read {
        self.tell_lost(self.read.next);
        self.read
    }
}

/// An event of a batch.
enum Found {
    Wanted(Formed),
    Unwanted,
    /// It matches the filter, but is older than the cutoff; its time.
    Lost(i64),
}

/// Receives events of a batch. They are mostly found in their order; events found too early are kept until it is their turn.
struct Window<'a, 'b, 'c> {
    reader: &'a mut Reader<'b, 'c>,
    position: &'a Position,
    /// The next offset to deliver.
    next: i32,
    early: BTreeMap<i32, Found>,
    /// Memory for early rows. (SPI's own memory context is current while they are received.)
    memory: PgMemoryContexts,
    /// Memory that is reset after each row.
    scratch: PgMemoryContexts,
}

impl Window<'_, '_, '_> {
    fn token(&self, offset: i32) -> Token {
        let next = Next { seq: self.position.seq, offset: offset + 1, placed_ms: self.position.ms };
        self.reader.request.token(next.place())
    }

    /// Checks a row against range, filter and cutoff; `None` if it is to be delivered.
    fn judge(&mut self, row: &SlotRow<'_>) -> Option<Found> {
        let request = self.reader.request;
        let created_at = row.int8(1).unwrap_or_default();
        let in_range = request.start <= created_at && created_at < request.end;
        if !in_range || !self.is_wanted(row) {
            Some(Found::Unwanted)
        } else if created_at < request.cutoff {
            Some(Found::Lost(created_at))
        } else {
            None
        }
    }

    fn is_wanted(&mut self, row: &SlotRow<'_>) -> bool {
        let request = self.reader.request;
        if request.filter.is_empty() {
            return true;
        }
        // SAFETY: nothing in this memory is used after the reset.
        unsafe {
            let before = pg_sys::MemoryContextSwitchTo(self.scratch.value());
            let is_wanted = request.filter.matches(row, &request.values);
            pg_sys::MemoryContextSwitchTo(before);
            self.scratch.reset();
            is_wanted
        }
    }

    fn look(&mut self, row: &SlotRow<'_>, offset: i32) {
        let judged = self.judge(row);
        if offset > self.next {
            let wanted = || Found::Wanted(self.reader.rows.form(row, &self.token(offset), &self.memory));
            let found = judged.unwrap_or_else(wanted);
            self.early.insert(offset, found);
            return;
        }
        match judged {
            Some(found) => self.deliver(found),
            None => {
                let token = self.token(offset);
                self.tell_lost();
                self.reader.rows.event(row, &token);
                self.reader.read.events += 1;
                self.step();
            }
        }
    }

    fn deliver(&mut self, found: Found) {
        match found {
            Found::Lost(created_at) if self.reader.is_excused(self.position, created_at) => {}
            Found::Lost(created_at) => {
                let to = self.reader.request.cutoff;
                self.reader.lose(Gap { from: created_at, to, reason: Reason::Retention });
            }
            Found::Unwanted => {}
            Found::Wanted(row) => {
                self.tell_lost();
                self.reader.rows.put_formed(row);
                self.reader.read.events += 1;
            }
        }
        self.step();
    }

    fn tell_lost(&mut self) {
        let next = Next { seq: self.position.seq, offset: self.next, placed_ms: self.position.ms };
        self.reader.tell_lost(next);
    }

    fn step(&mut self) {
        self.next += 1;
        self.reader.read.seen += 1;
    }

    fn is_full(&self) -> bool {
        self.reader.read.events >= self.reader.limit
    }

    /// Delivers the early events whose turn it is.
    fn deliver_early(&mut self) {
        while !self.early.is_empty()
            && !self.is_full()
            && let Some(found) = self.early.remove(&self.next)
        {
            self.deliver(found);
        }
    }

    /// Called when the search has ended: missing events are lost. Returns the offset at which it stopped.
    fn finish(mut self, end: i32) -> Result<i32> {
        self.deliver_early();
        while self.next < end && !self.is_full() {
            self.reader.lose_missing(self.position)?;
            self.step();
            self.deliver_early();
        }
        Ok(self.next)
    }
}

impl Sink for Window<'_, '_, '_> {
    fn take(&mut self, row: &SlotRow<'_>) -> bool {
        let offset = id::offset_of(row.int8(0).unwrap_or_default());
        // A search that starts over passes events again that were delivered.
        if offset >= self.next && !self.is_full() {
            self.look(row, offset);
            self.deliver_early();
        }
        !self.is_full()
    }

    fn clear(&mut self) {
        self.early.clear();
    }
}
