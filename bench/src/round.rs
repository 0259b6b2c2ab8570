//! Two contenders, in turns.

use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::backend::Backend;
use crate::screen;
use crate::server::Server;
use crate::statistics::median;

/// One timed section.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Measure {
    /// The amount of work: events stored, rows read.
    pub units: u64,
    pub seconds: f64,
    /// Of the server process.
    pub cpu_seconds: Option<f64>,
}

impl Measure {
    /// Runs what is to be timed; it returns its units.
    pub fn of(work: impl FnOnce() -> Result<u64>) -> Result<Self> {
        let started = Instant::now();
        let units = work()?;
        Ok(Self { units, seconds: started.elapsed().as_secs_f64(), cpu_seconds: None })
    }

    fn cpu_per_unit(&self) -> Option<f64> {
        self.cpu_seconds.map(|seconds| seconds.max(1e-9) / self.units.max(1) as f64)
    }

    pub fn rate(&self) -> f64 {
        self.units as f64 / self.seconds.max(1e-9)
    }
}

/// A contender: one way to do the work.
pub trait Contender {
    /// A description for the table.
    fn name(&self) -> String;

    /// The server process that does it.
    fn backend(&self) -> Backend;

    /// Brings the tables to where they are before every round; not timed.
    fn prepare(&mut self) -> Result<()>;

    /// Runs after the checkpoint that follows a round; not timed.
    fn settle(&mut self) -> Result<()> {
        Ok(())
    }

    /// Does the work and times it.
    fn run(&mut self) -> Result<Measure>;
}

/// The results of one contender in all rounds.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    pub name: String,
    pub rounds: Vec<Measure>,
}

impl Record {
    pub fn rate(&self) -> f64 {
        median(&self.rounds.iter().map(Measure::rate).collect::<Vec<_>>())
    }

    pub fn seconds(&self) -> f64 {
        median(&self.rounds.iter().map(|round| round.seconds).collect::<Vec<_>>())
    }
}

/// Both contenders' records.
#[derive(Clone, Debug)]
pub struct Duel {
    pub ours: Record,
    pub theirs: Record,
}

impl Duel {
    /// The median of each round's ratio: what slows the machine for longer than a round counts for
    /// both.
    pub fn ratio(&self) -> f64 {
        self.median_of(|ours, theirs| Some(ours.rate() / theirs.rate())).unwrap_or_default()
    }

    /// The same by the CPU time of the server processes, which other work on the machine hardly
    /// touches; it leaves out waiting for the disk, and the client.
    pub fn cpu_ratio(&self) -> Option<f64> {
        self.median_of(|ours, theirs| Some(theirs.cpu_per_unit()? / ours.cpu_per_unit()?))
    }

    fn median_of(&self, ratio: fn(&Measure, &Measure) -> Option<f64>) -> Option<f64> {
        let rounds = self.ours.rounds.iter().zip(&self.theirs.rounds);
        rounds
            .map(|(ours, theirs)| ratio(ours, theirs))
            .collect::<Option<Vec<_>>>()
            .map(|ratios| median(&ratios))
    }
}

/// Runs both in turns; the first one alternates.
pub fn duel(
    server: &Server,
    rounds: usize,
    ours: &mut dyn Contender,
    theirs: &mut dyn Contender,
) -> Result<Duel> {
    let mut duel = Duel {
        ours: Record { name: ours.name(), rounds: Vec::new() },
        theirs: Record { name: theirs.name(), rounds: Vec::new() },
    };
    for round in 0..rounds {
        let ours_first = round % 2 == 0;
        for ours_now in [ours_first, !ours_first] {
            if ours_now {
                duel.ours.rounds.push(turn(server, ours)?);
            } else {
                duel.theirs.rounds.push(turn(server, theirs)?);
            }
        }
        screen::progress(&format!("{} against {}", duel.ours.name, duel.theirs.name), round + 1, rounds);
    }
    Ok(duel)
}

fn turn(server: &Server, contender: &mut dyn Contender) -> Result<Measure> {
    let name = contender.name();
    contender.prepare().with_context(|| format!("cannot prepare {name}"))?;
    // Dirty pages of earlier rounds must not be written during the next one.
    server.checkpoint()?;
    contender.settle().with_context(|| format!("cannot prepare {name}"))?;
    let backend = contender.backend();
    let before = backend.cpu_seconds();
    let measure = contender.run().with_context(|| format!("{name} failed"))?;
    let cpu_seconds = before.zip(backend.cpu_seconds()).map(|(before, after)| after - before);
    Ok(Measure { cpu_seconds, ..measure })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_that_of_the_rounds() {
        let record = |seconds: [f64; 3]| Record {
            name: String::new(),
            rounds: seconds.map(|seconds| Measure { units: 10, seconds, cpu_seconds: Some(1.0) }).to_vec(),
        };
        // The second round was slow for both.
        let duel = Duel { ours: record([1.0, 5.0, 1.0]), theirs: record([2.0, 10.0, 2.0]) };
        assert_eq!(duel.ratio(), 2.0);
        assert_eq!(duel.ours.rate(), 10.0);
        assert_eq!(duel.cpu_ratio(), Some(1.0));
    }
}
