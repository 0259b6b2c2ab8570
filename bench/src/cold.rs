//! Making a table as cold as one that nobody has read for long: out of the server's memory and out of
//! the system's.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use postgres::Client;

/// All chunks of a hypertable with their indexes and TOAST.
const RELATIONS: &str = "
    WITH chunk AS (SELECT c.oid, c.reltoastrelid FROM show_chunks($1::text::regclass) s JOIN pg_class c ON c.oid = s),
    tables AS (SELECT oid FROM chunk UNION ALL SELECT reltoastrelid FROM chunk WHERE reltoastrelid <> 0)
    SELECT pg_relation_filenode(oid), pg_relation_filepath(oid) FROM (
        SELECT oid FROM tables
        UNION ALL SELECT indexrelid FROM pg_index JOIN tables ON indrelid = tables.oid) AS relation";
const EVICT: &str = "
    SELECT count(pg_buffercache_evict(bufferid)) FROM pg_buffercache
    WHERE relfilenode = ANY ($1::oid[])
        AND reldatabase = (SELECT oid FROM pg_database WHERE datname = current_database())";

/// Whether this server can be told to forget a table.
pub fn is_possible(client: &mut Client) -> Result<bool> {
    client
        .batch_execute("CREATE EXTENSION IF NOT EXISTS pg_buffercache")
        .and_then(|()| client.query_one("SELECT to_regproc('pg_buffercache_evict') IS NOT NULL", &[]))
        .map_or(Ok(false), |row| Ok(row.get(0)))
}

/// Forgets all chunks of a hypertable; what is dirty has to be written before.
pub fn forget(client: &mut Client, data_dir: &Path, hypertable: &str) -> Result<()> {
    let rows = client.query(RELATIONS, &[&hypertable]).context("cannot list the files of a table")?;
    let filenodes: Vec<u32> = rows.iter().map(|row| row.get(0)).collect();
    client.query(EVICT, &[&filenodes]).context("cannot evict buffers")?;
    for row in rows {
        let path = data_dir.join(row.get::<_, String>(1));
        segments(&path).iter().try_for_each(|segment| drop_from_page_cache(segment))?;
    }
    Ok(())
}

/// The files of a relation, which is cut into pieces of 1 GB.
fn segments(path: &Path) -> Vec<PathBuf> {
    let numbered = (1..).map(|number| PathBuf::from(format!("{}.{number}", path.display())));
    let forks = ["_fsm", "_vm"].map(|fork| PathBuf::from(format!("{}{fork}", path.display())));
    let mut files = vec![path.to_owned()];
    files.extend(numbered.take_while(|segment| segment.exists()));
    files.extend(forks.into_iter().filter(|fork| fork.exists()));
    files
}

fn drop_from_page_cache(path: &Path) -> Result<()> {
    File::open(path)
        .map_err(anyhow::Error::from)
        .and_then(|file| Ok(posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?))
        .with_context(|| format!("cannot make the system forget {}", path.display()))
}
