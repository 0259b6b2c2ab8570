//! How far the mirror has come, as Redis itself says it.
//!
//! The marker is written in the same Redis transaction as the entries before it, and read before the next one. So
//! after any crash, on any side, it tells which entries are there; a Redis that came back with older data, or a
//! replica that took over without the last of it, has the marker that goes with what it has.
//!
//! The cursor covers what was appended. What was done besides (a stream made again, or removed with its org) is covered
//! by the number of the last such resync. A Redis whose marker has a smaller number than the table has lost one of
//! them, and its streams are made anew.

use std::fmt;
use std::str::FromStr;

/// A place between two events: everything before it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Cursor {
    pub seq: i64,
    /// Events of this position that were sent.
    pub offset: i32,
}

impl Cursor {
    pub fn before(seq: i64) -> Self {
        Self { seq, offset: 0 }
    }
}

/// What Redis holds under the marker's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// Drawn anew whenever the streams are made again.
    pub epoch: String,
    /// The server's timeline: after a failover positions may stand for other batches than before.
    pub timeline: u32,
    /// The number of the last resync that was completed. It only grows, and no number is used twice.
    pub resyncs: i64,
    pub cursor: Cursor,
}

impl Marker {
    /// What stands in the marker's place while the streams of an epoch are being removed: no marker, so if that is
    /// interrupted it is done again.
    pub fn resetting(&self) -> String {
        format!("2 {} resetting", self.epoch)
    }
}

impl fmt::Display for Marker {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { epoch, timeline, resyncs, cursor: Cursor { seq, offset } } = self;
        write!(out, "2 {epoch} {timeline} {resyncs} {seq} {offset}")
    }
}

impl FromStr for Marker {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let parts: Vec<&str> = text.split(' ').collect();
        let ["2", epoch, timeline, resyncs, seq, offset] = parts.as_slice() else { return Err(()) };
        Ok(Self {
            epoch: (*epoch).to_owned(),
            timeline: timeline.parse().map_err(drop)?,
            resyncs: resyncs.parse().map_err(drop)?,
            cursor: Cursor { seq: seq.parse().map_err(drop)?, offset: offset.parse().map_err(drop)? },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_survives_its_text() {
        let cursor = Cursor { seq: 9, offset: 2 };
        let marker = Marker { epoch: "e-1".into(), timeline: 3, resyncs: 7, cursor };
        assert_eq!(marker.to_string().parse(), Ok(marker));
    }

    #[test]
    fn what_is_no_marker_is_refused() {
        let resetting =
            Marker { epoch: "e".into(), timeline: 1, resyncs: 1, cursor: Cursor::before(1) }.resetting();
        for text in ["", "2", "1 e 1 1 1", "1 e 1 1 1 1", "2 e 1 1 1 x", "2 e 1 1 1 1 1", &resetting] {
            assert_eq!(text.parse::<Marker>(), Err(()), "{text}");
        }
    }
}
