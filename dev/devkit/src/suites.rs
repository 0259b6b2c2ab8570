//! The test suites that need a server prepared for them: pg_regress and pgrx's own.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use tailstream_devkit::cluster::SUPERUSER;
use tailstream_devkit::server_user::ServerUser;
use tailstream_devkit::{Cluster, extension, postgres_install, repository};

/// Lines of differences that are shown.
const DIFF_LINES: usize = 200;

/// A set of tests that one of PostgreSQL's test programs runs and compares with expected output.
struct Suite {
    /// Its folder in `tests`.
    name: &'static str,
    database: &'static str,
    /// Folder and extension of its inputs.
    inputs: (&'static str, &'static str),
    /// Where PostgreSQL's development files have the program, below its `--pgxs` directory.
    program: &'static str,
    /// Further arguments.
    arguments: &'static [&'static str],
}

const SUITES: [Suite; 2] = [
    Suite {
        name: "pg_regress",
        database: "tailstream_regress",
        inputs: ("sql", "sql"),
        program: "test/regress/pg_regress",
        arguments: &[],
    },
    Suite {
        name: "pg_isolation",
        database: "tailstream_isolation",
        inputs: ("specs", "spec"),
        program: "test/isolation/pg_isolation_regress",
        arguments: &["--load-extension=timescaledb", "--load-extension=tailstream"],
    },
];

/// Runs the tests named in each suite's `schedule`. With `accept`, makes the results the expected output.
pub fn regress(accept: bool) -> Result<()> {
    let cluster = Cluster::builder("regress")
        .preload(&["timescaledb", "tailstream", "pg_cron"])
        .cron_database(SUITES[0].database)
        .create()?;
    for suite in &SUITES {
        suite.run(&cluster, accept)?;
    }
    Ok(())
}

impl Suite {
    fn run(&self, cluster: &Cluster, accept: bool) -> Result<()> {
        let root = repository::root()?;
        let input = root.join("tests").join(self.name);
        let output = root.join("target").join(self.name);
        if accept {
            self.make_missing_expected(&input)?;
        }
        fs::create_dir_all(&output).with_context(|| format!("cannot create {}", output.display()))?;
        let status = Command::new(self.program()?)
            .arg("--host")
            .arg(cluster.socket_dir())
            .arg("--port")
            .arg(cluster.port().to_string())
            .args(["--user", SUPERUSER, "--dbname", self.database])
            .arg("--bindir")
            .arg(postgres_install::bin_dir())
            .arg("--inputdir")
            .arg(&input)
            .arg("--expecteddir")
            .arg(&input)
            .arg("--outputdir")
            .arg(&output)
            .args(self.arguments)
            .arg(format!("--schedule={}", input.join("schedule").display()))
            .status()
            .with_context(|| format!("cannot run {}; run dev/setup.sh", self.program))?;
        if accept {
            return accept_results(&output.join("results"), &input.join("expected"));
        }
        if !status.success() {
            let diffs = output.join("regression.diffs");
            let text = fs::read_to_string(&diffs).unwrap_or_default();
            for line in text.lines().take(DIFF_LINES) {
                println!("{line}");
            }
            bail!(
                "{} tests failed; all differences are in {}. If the new output is right: tailstream-dev regress --accept",
                self.name,
                diffs.display()
            );
        }
        Ok(())
    }

    fn program(&self) -> Result<PathBuf> {
        let makefile = PathBuf::from(postgres_install::ask_pg_config("--pgxs")?);
        // The makefile is .../src/makefiles/pgxs.mk, the program below .../src.
        makefile
            .ancestors()
            .nth(2)
            .map(|sources| sources.join(self.program))
            .filter(|program| program.is_file())
            .with_context(|| {
                format!(
                    "{} is missing; dev/setup.sh installs it with PostgreSQL's development files",
                    self.program
                )
            })
    }

    /// Creates empty expected output where there is none: both programs stop at the first test without.
    fn make_missing_expected(&self, suite: &Path) -> Result<()> {
        let (folder, extension) = self.inputs;
        let (inputs, expected) = (suite.join(folder), suite.join("expected"));
        fs::create_dir_all(&expected).with_context(|| format!("cannot create {}", expected.display()))?;
        for entry in fs::read_dir(&inputs).with_context(|| format!("cannot read {}", inputs.display()))? {
            let input = entry.with_context(|| format!("cannot read {}", inputs.display()))?.path();
            let Some(name) =
                input.file_stem().filter(|_| input.extension().is_some_and(|found| found == extension))
            else {
                continue;
            };
            let path = expected.join(name).with_extension("out");
            OpenOptions::new()
                .append(true)
                .create(true)
                .open(&path)
                .with_context(|| format!("cannot create {}", path.display()))?;
        }
        Ok(())
    }
}

fn accept_results(results: &Path, expected: &Path) -> Result<()> {
    for entry in fs::read_dir(results).with_context(|| format!("cannot read {}", results.display()))? {
        let path = entry.with_context(|| format!("cannot read {}", results.display()))?.path();
        if let Some(name) = path.file_name() {
            fs::copy(&path, expected.join(name))
                .with_context(|| format!("cannot copy {}", path.display()))?;
        }
    }
    println!(
        "the results are now what is expected; read the change before you commit it: git diff {}",
        expected.display()
    );
    Ok(())
}

/// Runs `cargo pgrx test` with a server that runs as the user of all private servers. The data lives
/// where that user can reach it. Naming the user, even if it is the caller, also has the test build
/// installed by sudo where that is needed.
pub fn pgrx_test() -> Result<()> {
    let user = ServerUser::detect()?;
    let home = repository::clusters_dir(&user)?.join("pgrx-test");
    // pgrx runs initdb every time, which wants an empty directory.
    if home.exists() {
        fs::remove_dir_all(&home).with_context(|| format!("cannot remove {}", home.display()))?;
    }
    user.make_private_dir(&home)?;
    extension::detach_library()?;
    let status = extension::cargo(&repository::root()?)
        .args([
            "pgrx",
            "test",
            &format!("pg{}", postgres_install::major()?),
            "--runas",
            &user.name()?,
            "--pgdata",
        ])
        .arg(home.join("data"))
        .status()
        .context("cannot run cargo; install Rust and run dev/setup.sh")?;
    if !status.success() {
        bail!("'cargo pgrx test' failed; what it says above tells why");
    }
    Ok(())
}
