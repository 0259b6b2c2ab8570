//! Block hints: the heap blocks where the rows of a batch were inserted.
//!
//! The mirror reads a batch back shortly after its commit. Through the index, the cost depends on the number of the org's events
//! in the batch's time range, which other producers also fill; through the blocks, only on the size of the batch. It is only
//! a hint: a reader checks that it found all events, and reads through the index otherwise.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// Most runs of blocks in a hint. Rows in more runs are scattered and get no hint.
const MAX_RUNS: usize = 8;
/// Two runs with fewer blocks between them are merged.
const NEAR: u32 = 3;
/// Fewest rows per block for which a hint is kept. With fewer, a reader would read too many rows of other batches.
const MIN_ROWS: usize = 2;
/// Number of blocks for which a hint is always kept.
const FEW_BLOCKS: usize = 8;
/// A part of a batch is searched within 1/32 of all blocks around its expected place.
const MARGIN: u64 = 32;

/// Runs of blocks of one chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockHint {
    /// Oid of the chunk.
    pub chunk: u32,
    /// First and last block of each run.
    pub runs: Vec<(u32, u32)>,
}

impl BlockHint {
    pub fn new(chunk: u32) -> Self {
        Self { chunk, runs: Vec::new() }
    }

    /// Adds a block. Returns false if the hint has too many runs then.
    pub fn add(&mut self, block: u32) -> bool {
        let near = |run: &&mut (u32, u32)| block + NEAR >= run.0 && block <= run.1.saturating_add(NEAR);
        // Consecutive rows are mostly inserted into the same block or the next one.
        if let Some(run) = self.runs.iter_mut().rev().find(near) {
            if block < run.0 || run.1 < block {
                *run = (run.0.min(block), run.1.max(block));
                self.merge();
            }
            return true;
        }
        self.runs.push((block, block));
        self.runs.len() <= MAX_RUNS
    }

    /// Merges runs that are close to each other, so that no block is read twice.
    fn merge(&mut self) {
        if self.runs.len() < 2 {
            return;
        }
        let last = self.runs.last().copied();
        self.runs.sort_unstable();
        self.runs.dedup_by(|next, run| {
            let is_near = next.0 <= run.1.saturating_add(NEAR);
            if is_near {
                run.1 = run.1.max(next.1);
            }
            is_near
        });
        // The run of the latest row stays last, because the next row most likely belongs to it.
        let latest =
            last.and_then(|last| self.runs.iter().position(|run| run.0 <= last.0 && last.1 <= run.1));
        if let Some(latest) = latest {
            let run = self.runs.remove(latest);
            self.runs.push(run);
        }
    }

    /// Whether reading the blocks is worthwhile for this number of rows.
    fn is_close(&self, rows: usize) -> bool {
        self.blocks() as usize <= FEW_BLOCKS + rows / MIN_ROWS
    }

    fn blocks(&self) -> u64 {
        self.runs.iter().map(|(first, last)| u64::from(last - first) + 1).sum()
    }

    /// The blocks in which a range of the batch's `all` rows is expected, with a margin on both sides, if the rows were inserted
    /// in order and have similar sizes. `None` if these are not much fewer than all blocks.
    pub fn part(&self, rows: Range<u32>, all: u32) -> Option<Self> {
        let blocks = self.blocks();
        let place = |row: u32| blocks * u64::from(row) / u64::from(all.max(1));
        let margin = blocks / MARGIN + FEW_BLOCKS as u64 / 2;
        let (from, to) = (place(rows.start).saturating_sub(margin), place(rows.end) + margin);
        if to.saturating_sub(from) * 2 > blocks {
            return None;
        }
        let mut part = Self::new(self.chunk);
        let mut before = 0;
        for (first, last) in &self.runs {
            let length = u64::from(last - first) + 1;
            let (start, end) = (from.max(before), to.min(before + length));
            if start < end {
                part.runs.push((first + (start - before) as u32, first + (end - before - 1) as u32));
            }
            before += length;
        }
        Some(part)
    }
}

/// The chunk's oid, then each run: "17324 8311 8580-8605".
impl fmt::Display for BlockHint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.chunk)?;
        self.runs.iter().try_for_each(|(first, last)| match last - first {
            0 => write!(out, " {first}"),
            _ => write!(out, " {first}-{last}"),
        })
    }
}

impl FromStr for BlockHint {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut words = text.split(' ');
        let chunk = words.next().unwrap_or_default().parse()?;
        let run = |word: &str| {
            let (first, last) = word.split_once('-').unwrap_or((word, word));
            let first = first.parse()?;
            Ok((first, last.parse::<u32>()?.max(first)))
        };
        let mut block_hint = Self { chunk, runs: words.map(run).collect::<Result<_, Self::Err>>()? };
        block_hint.merge();
        Ok(block_hint)
    }
}

/// Collects the blocks of a batch's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlockHintBuilder {
    /// No row yet.
    None,
    One(BlockHint),
    /// In several chunks, in too many runs, or unknown.
    Scattered,
}

impl BlockHintBuilder {
    pub fn add(&mut self, chunk: u32, block: u32) {
        if *self == Self::None {
            *self = Self::One(BlockHint::new(chunk));
        }
        if let Self::One(block_hint) = self
            && (block_hint.chunk != chunk || !block_hint.add(block))
        {
            *self = Self::Scattered;
        }
    }

    /// The hint for this number of rows, if it is worthwhile.
    pub fn hint(self, rows: usize) -> Option<BlockHint> {
        match self {
            Self::One(block_hint) if block_hint.is_close(rows) => Some(block_hint),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hints(blocks: &[(u32, u32)]) -> BlockHintBuilder {
        let mut hints = BlockHintBuilder::None;
        blocks.iter().for_each(|(chunk, block)| hints.add(*chunk, *block));
        hints
    }

    #[test]
    fn a_hint_is_a_few_runs_of_one_chunk() {
        assert_eq!(hints(&[]).hint(1), None);
        let hint = hints(&[(1, 7), (1, 7), (1, 500), (1, 501), (1, 504), (1, 8)]).hint(4).unwrap();
        assert_eq!(hint.runs, [(7, 8), (500, 504)]);
        assert_eq!(hints(&[(1, 7), (2, 7)]).hint(100), None, "two chunks");
        let far: Vec<(u32, u32)> = (0..9).map(|run| (1, run * 100)).collect();
        assert!(hints(&far[..8]).hint(100).is_some());
        assert_eq!(hints(&far).hint(100), None, "too many places");
        let wide: Vec<(u32, u32)> = (0..20).map(|block| (1, block * 3)).collect();
        assert_eq!(hints(&wide).hint(20), None, "too wide for its rows");
    }

    #[test]
    fn runs_that_meet_become_one() {
        let mut blocks = vec![(1, 172)];
        blocks.extend((168..=200).map(|block| (1, block)));
        blocks.extend([(1, 17), (1, 21), (1, 22)]);
        let hint = hints(&blocks).hint(1_000).unwrap();
        assert_eq!(hint.runs, [(17, 17), (168, 200), (21, 22)]);
        let old = "27069 172 168-200 17 21-23".parse::<BlockHint>().unwrap();
        assert_eq!(old.runs, [(17, 17), (168, 200), (21, 23)]);
    }

    proptest! {
        #[test]
        fn every_block_is_in_one_run(blocks in prop::collection::vec(0_u32..60, 1..60)) {
            let BlockHintBuilder::One(block_hint) = hints(&blocks.iter().map(|block| (1, *block)).collect::<Vec<_>>()) else {
                return Ok(());
            };
            for block in blocks {
                let runs = block_hint.runs.iter().filter(|run| run.0 <= block && block <= run.1).count();
                prop_assert_eq!(runs, 1, "block {} in {:?}", block, block_hint.runs);
            }
        }
    }

    #[test]
    fn a_part_is_around_where_its_rows_should_be() {
        let block_hint = BlockHint { chunk: 1, runs: vec![(100, 299), (1_000, 1_799)] };
        assert_eq!(block_hint.part(0..10, 10_000).unwrap().runs, [(100, 135)]);
        assert_eq!(block_hint.part(5_000..5_100, 10_000).unwrap().runs, [(1_265, 1_344)]);
        assert_eq!(block_hint.part(9_900..10_000, 10_000).unwrap().runs, [(1_755, 1_799)]);
        assert_eq!(block_hint.part(1_900..2_100, 10_000).unwrap().runs, [(255, 299), (1_000, 1_044)]);
        assert_eq!(block_hint.part(0..5_000, 10_000), None, "half and more");
        let small = BlockHint { chunk: 1, runs: vec![(3, 9)] };
        assert_eq!(small.part(0..1, 1_000), None, "a few blocks");
    }

    proptest! {
        #[test]
        fn parts_lie_in_the_runs_and_together_are_all(
            lengths in prop::collection::vec(1_u32..400, 1..6), parts in 3_u32..40,
        ) {
            let runs: Vec<_> = lengths.iter().zip(1_u32..).map(|(length, run)| (run * 1_000, run * 1_000 + length - 1)).collect();
            let (block_hint, all) = (BlockHint { chunk: 1, runs }, parts * 100);
            let mut covered = std::collections::BTreeSet::new();
            for part in 0..parts {
                let found = block_hint.part(part * 100..(part + 1) * 100, all).unwrap_or_else(|| block_hint.clone());
                for (first, last) in found.runs {
                    prop_assert!(block_hint.runs.iter().any(|run| run.0 <= first && first <= last && last <= run.1));
                    covered.extend(first..=last);
                }
            }
            prop_assert_eq!(covered.len() as u64, block_hint.blocks());
        }
    }

    #[test]
    fn a_hint_survives_its_text() {
        let block_hint = BlockHint { chunk: 17_324, runs: vec![(8_311, 8_311), (8_580, u32::MAX)] };
        assert_eq!(block_hint.to_string(), "17324 8311 8580-4294967295");
        assert_eq!(block_hint.to_string().parse(), Ok(block_hint));
        for text in ["", "x", "1 a", "1 5-", "1 2-3-4"] {
            assert!(text.parse::<BlockHint>().is_err(), "{text}");
        }
    }
}
