//! `tailstream-bench`: what `make bench` runs. Every comparison takes place on one private server,
//! in interleaved rounds, so that whatever slows the machine slows both contenders.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod backend;
mod cold;
mod comparison;
mod context;
mod generator;
mod ingest;
mod key;
mod load;
mod machine;
mod mirror;
mod options;
mod payload;
mod purge;
mod replay;
mod results;
mod round;
mod sample;
mod screen;
mod server;
mod size;
mod statistics;
mod table;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use context::Context;
use options::Options;
use results::Results;
use sample::Samples;
use server::{OURS, SCALE_FEW, SCALE_MANY, Server};

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures what is asked for; false if something was to be reached (`--check`) and was not.
fn run(options: &Options) -> Result<bool> {
    let samples = Samples::load(options.log.as_deref())?;
    println!("{}", samples.origin());
    let databases = [&[OURS, SCALE_MANY, SCALE_FEW][..], &replay::DATABASES, &mirror::DATABASES].concat();
    let server = Server::start(&databases)?;
    let mut results = Results::new(options, &samples, &server)?;
    for comparison in comparison::ALL {
        if !options.wants(comparison.keys) {
            continue;
        }
        screen::heading(comparison.title);
        let context = Context { server: &server, samples: &samples, options };
        (comparison.run)(&context, &mut results)?;
        // A long run that fails at its end leaves what it measured.
        results.save()?;
    }
    table::print(&results);
    println!("\nAll figures are in {}", results.save()?.display());
    server.destroy()?;
    Ok(!options.check || results.reaches_all())
}
