//! Reading a log from a file, a gzip file, or standard input.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;

use anyhow::{Context, Result};
use flate2::bufread::MultiGzDecoder;

use super::{AccessEvent, parse};

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// A longer line is no access-log line; a device that never ends one must not fill the memory.
const LINE_MAX: u64 = 1 << 20;

/// What a log holds.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    pub events: Vec<AccessEvent>,
    /// Lines that are no access-log lines.
    pub unparseable: u64,
    /// The first of these: its number and why it is none.
    pub first_unparseable: Option<(u64, String)>,
}

/// Opens a log: a file, plain or gzip, or `-` for standard input.
pub fn open_log(path: &Path) -> Result<Box<dyn BufRead>> {
    if path == Path::new("-") {
        return decompressed(io::stdin()).context("cannot read the log from standard input");
    }
    File::open(path)
        .map_err(Into::into)
        .and_then(decompressed)
        .with_context(|| format!("cannot read the log {}; is its path right?", path.display()))
}

/// Reads a whole log; empty lines count as nothing.
pub fn read_log(path: &Path) -> Result<Contents> {
    read_lines(&mut open_log(path)?)
        .with_context(|| format!("cannot read the log {} to its end", path.display()))
}

fn decompressed(mut input: impl Read + 'static) -> Result<Box<dyn BufRead>> {
    let mut start = Vec::new();
    input.by_ref().take(GZIP_MAGIC.len() as u64).read_to_end(&mut start)?;
    let is_gzip = start == GZIP_MAGIC;
    let whole = BufReader::new(Cursor::new(start).chain(input));
    Ok(if is_gzip { Box::new(BufReader::new(MultiGzDecoder::new(whole))) } else { Box::new(whole) })
}

fn read_lines(input: &mut dyn BufRead) -> Result<Contents> {
    let mut contents = Contents::default();
    let mut line = Vec::new();
    let mut line_number = 0;
    loop {
        line.clear();
        if input.take(LINE_MAX).read_until(b'\n', &mut line)? == 0 {
            return Ok(contents);
        }
        line_number += 1;
        if !line.ends_with(b"\n") {
            skip_line(input)?;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        match parse(&line) {
            Ok(event) => contents.events.push(event),
            Err(error) => {
                contents.unparseable += 1;
                contents.first_unparseable.get_or_insert_with(|| (line_number, error.to_string()));
            }
        }
    }
}

/// Passes over the rest of a line that is too long.
fn skip_line(input: &mut dyn BufRead) -> Result<()> {
    let mut scratch = Vec::new();
    loop {
        scratch.clear();
        let read = input.take(LINE_MAX).read_until(b'\n', &mut scratch)?;
        if read == 0 || scratch.ends_with(b"\n") {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    const LOG: &[u8] = b"h - - [17/May/2015:10:05:03 +0000] \"GET /a HTTP/1.1\" 200 1\n\n\
        what is this\n\
        h - - [17/May/2015:10:05:04 +0000] \"GET /\xff HTTP/1.1\" 200 1";

    fn read(bytes: Vec<u8>) -> Contents {
        read_lines(&mut decompressed(Cursor::new(bytes)).unwrap()).unwrap()
    }

    #[test]
    fn plain_and_gzip_are_the_same() {
        let plain = read(LOG.to_vec());
        assert_eq!(plain.events.len(), 2);
        assert_eq!(plain.events[1].path, "/\u{fffd}");
        assert_eq!((plain.unparseable, plain.first_unparseable.as_ref().unwrap().0), (1, 3));
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(LOG).unwrap();
        assert_eq!(read(gzip.finish().unwrap()).events, plain.events);
    }

    #[test]
    fn odd_inputs() {
        assert_eq!(read(Vec::new()).events.len(), 0);
        assert_eq!(read(vec![0x1f]).unparseable, 1);
        let mut long = vec![b'x'; usize::try_from(LINE_MAX).unwrap() * 2 + 10];
        long.push(b'\n');
        long.extend_from_slice(LOG);
        let contents = read(long);
        assert_eq!((contents.events.len(), contents.unparseable), (2, 2));
    }

    #[test]
    fn a_missing_file_says_which() {
        let error = open_log(Path::new("/no/such.log")).err().unwrap();
        assert!(format!("{error:#}").contains("/no/such.log"));
    }
}
