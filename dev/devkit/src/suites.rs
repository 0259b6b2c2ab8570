//! The test suites that need a server prepared for them: pg_regress and pgrx's own.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use tailstream_devkit::cluster::SUPERUSER;
use tailstream_devkit::server_user::ServerUser;
use tailstream_devkit::{Cluster, extension, postgres_install, repository};

const DATABASE: &str = "tailstream_regress";
/// Where PostgreSQL's development files have the program, below its `--pgxs` directory.
const PG_REGRESS: &str = "test/regress/pg_regress";
/// Lines of differences that are shown.
const DIFF_LINES: usize = 200;

/// Runs the tests named in `tests/pg_regress/schedule`, or all of `tests/pg_regress/sql` in the
/// order of their names.
pub fn regress(accept: bool) -> Result<()> {
    let root = repository::root()?;
    let input = root.join("tests/pg_regress");
    let output = root.join("target/pg_regress");
    let tests = regress_tests(&input)?;
    if accept {
        make_missing_expected(&input)?;
    }
    fs::create_dir_all(&output).with_context(|| format!("cannot create {}", output.display()))?;
    let cluster = Cluster::builder("regress")
        .preload(&["timescaledb", "tailstream", "pg_cron"])
        .cron_database(DATABASE)
        .create()?;
    let passed = pg_regress(&cluster, &input, &output, &tests)?;
    if accept {
        return accept_results(&output.join("results"), &input.join("expected"));
    }
    if !passed {
        let diffs = output.join("regression.diffs");
        let text = fs::read_to_string(&diffs).unwrap_or_default();
        for line in text.lines().take(DIFF_LINES) {
            println!("{line}");
        }
        bail!(
            "pg_regress tests failed; all differences are in {}. If the new output is right: tailstream-dev regress --accept",
            diffs.display()
        );
    }
    Ok(())
}

fn pg_regress(cluster: &Cluster, input: &Path, output: &Path, tests: &[String]) -> Result<bool> {
    let status = Command::new(pg_regress_program()?)
        .arg("--host")
        .arg(cluster.socket_dir())
        .arg("--port")
        .arg(cluster.port().to_string())
        .args(["--user", SUPERUSER, "--dbname", DATABASE])
        .arg("--bindir")
        .arg(postgres_install::bin_dir())
        .arg("--inputdir")
        .arg(input)
        .arg("--expecteddir")
        .arg(input)
        .arg("--outputdir")
        .arg(output)
        .args(tests)
        .status()
        .context("cannot run pg_regress; run dev/setup.sh")?;
    Ok(status.success())
}

fn pg_regress_program() -> Result<PathBuf> {
    let pg_config = postgres_install::program("pg_config");
    let output = Command::new(&pg_config)
        .arg("--pgxs")
        .output()
        .with_context(|| format!("cannot run {}; run dev/setup.sh", pg_config.display()))?;
    let makefile = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    // The makefile is .../src/makefiles/pgxs.mk, the program below .../src.
    makefile
        .ancestors()
        .nth(2)
        .map(|sources| sources.join(PG_REGRESS))
        .filter(|program| program.is_file())
        .context("pg_regress is not installed; dev/setup.sh installs it with PostgreSQL's development files")
}

/// A schedule as an argument, or the names of all tests.
fn regress_tests(input: &Path) -> Result<Vec<String>> {
    let schedule = input.join("schedule");
    if schedule.is_file() {
        return Ok(vec![format!("--schedule={}", schedule.display())]);
    }
    let names = sql_names(input)?;
    if names.is_empty() {
        bail!("there are no tests in {}", input.display());
    }
    Ok(names)
}

/// The names of the tests in `sql`, in order.
fn sql_names(input: &Path) -> Result<Vec<String>> {
    let sql = input.join("sql");
    let entries = fs::read_dir(&sql).with_context(|| format!("there are no tests in {}", sql.display()))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

/// pg_regress gives up at the first test without expected output.
fn make_missing_expected(input: &Path) -> Result<()> {
    let expected = input.join("expected");
    fs::create_dir_all(&expected).with_context(|| format!("cannot create {}", expected.display()))?;
    for name in sql_names(input)? {
        let path = expected.join(name).with_extension("out");
        OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .with_context(|| format!("cannot create {}", path.display()))?;
    }
    Ok(())
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
        .args(["pgrx", "test", "pg17", "--runas", &user.name()?, "--pgdata"])
        .arg(home.join("data"))
        .status()
        .context("cannot run cargo; install Rust and run dev/setup.sh")?;
    if !status.success() {
        bail!("'cargo pgrx test' failed; what it says above tells why");
    }
    Ok(())
}
