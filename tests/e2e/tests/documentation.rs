//! Every block of SQL in the documentation is run, each file in a server of its own that mirrors to a Redis of its own.
//!
//! Blocks that begin with ```` ```sql ```` must succeed, those with ```` ```sql error ```` must fail, and
//! those with ```` ```sql no-run ```` are for readers only. Each block is a session of psql.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tailstream_devkit::{Cluster, Redis, postgres_install, repository};
use tailstream_e2e::Server;
use tailstream_e2e::server::PRELOAD;

const DATABASE: &str = "docs";

#[derive(Debug, PartialEq, Eq)]
enum Expected {
    Success,
    Error,
}

#[derive(Debug)]
struct Block {
    /// Of its first line of SQL, from 1.
    line: usize,
    expected: Expected,
    sql: String,
}

fn blocks(markdown: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Option<Block>> = None;
    for (index, line) in markdown.lines().enumerate() {
        let fence = line.trim_start().strip_prefix("```");
        open = match (open, fence) {
            (None, None) => None,
            (None, Some(language)) => Some(block(language.trim(), index + 2)),
            (Some(done), Some(_)) => {
                blocks.extend(done);
                None
            }
            (Some(block), None) => Some(block.map(|mut block| {
                block.sql.push_str(line);
                block.sql.push('\n');
                block
            })),
        };
    }
    assert!(open.is_none(), "a block has no end");
    blocks
}

fn block(language: &str, line: usize) -> Option<Block> {
    let expected = match language {
        "sql" => Expected::Success,
        "sql error" => Expected::Error,
        "sql no-run" => return None,
        other => {
            assert!(!other.starts_with("sql"), "line {line}: no such kind of block: {other}");
            return None;
        }
    };
    Some(Block { line, expected, sql: String::new() })
}

/// Runs a block; its line numbers are the file's.
fn run(cluster: &Cluster, block: &Block) -> Result<(), String> {
    let mut psql = Command::new(postgres_install::program("psql"))
        .args(cluster.psql_args())
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", DATABASE, "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("psql");
    let script = format!("{}{}", "\n".repeat(block.line - 1), block.sql);
    let input = psql.stdin.take();
    input.expect("a pipe").write_all(script.as_bytes()).expect("the script");
    let output = psql.wait_with_output().expect("psql");
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// What is wrong with the SQL of one file.
fn check(file: &Path, name: &str) -> Vec<String> {
    let markdown = fs::read_to_string(file).expect("the file");
    let blocks = blocks(&markdown);
    if blocks.is_empty() {
        return Vec::new();
    }
    let redis = Redis::builder("e2e-documentation").create().expect("a Redis");
    let cluster = Server::create("documentation", |builder| {
        builder
            .preload(&PRELOAD)
            .cron_database(DATABASE)
            .setting("tailstream.databases", DATABASE)
            .setting("tailstream.redis_url", &redis.url())
    });
    cluster.create_database(DATABASE).expect("a database");
    let mut wrong = Vec::new();
    for block in &blocks {
        match (run(&cluster, block), &block.expected) {
            (Ok(()), Expected::Success) | (Err(_), Expected::Error) => {}
            (Ok(()), Expected::Error) => {
                wrong.push(format!("{name}:{}: succeeds and should not", block.line))
            }
            (Err(error), Expected::Success) => {
                wrong.push(error.replace("psql:<stdin>", name).trim_end().to_owned());
            }
        }
    }
    println!("{name}: {} blocks", blocks.len());
    wrong
}

#[test]
fn the_sql_of_the_documentation_runs() {
    let root = repository::root().expect("the repository");
    let mut files = vec![root.join("README.md")];
    if let Ok(docs) = fs::read_dir(root.join("docs")) {
        let mut docs: Vec<PathBuf> = docs.map(|entry| entry.expect("an entry").path()).collect();
        docs.sort();
        files.extend(docs.into_iter().filter(|file| file.extension().is_some_and(|end| end == "md")));
    }
    let mut wrong = Vec::new();
    for file in files.iter().filter(|file| file.exists()) {
        let name = file.strip_prefix(&root).expect("a file of the repository").display().to_string();
        wrong.extend(check(file, &name));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn blocks_are_found_with_their_lines() {
    let found = blocks(
        "a\n```sql\nSELECT 1;\n```\n```sh\nls\n```\n```sql no-run\nx\n```\n```sql error\nSELECT\n1/0;\n```\n",
    );
    let seen: Vec<_> = found.iter().map(|block| (block.line, &block.expected, &*block.sql)).collect();
    assert_eq!(seen, [(3, &Expected::Success, "SELECT 1;\n"), (12, &Expected::Error, "SELECT\n1/0;\n")]);
}
