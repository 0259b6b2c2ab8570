//! How far the mirror has come, as Redis itself says it.
//!
//! The checkpoint is written in the same Redis transaction as the entries before it, and read before the next one. So
//! after any crash, on any side, it tells which entries are there; a Redis that came back with older data, or a
//! replica that took over without the last of it, has the checkpoint that goes with what it has.
//!
//! The cursor covers what was appended. What was done besides (a stream made again, or removed with its org) is covered
//! by the number of the last such resync. A Redis whose checkpoint has a smaller number than the table has lost one of
//! them, and its streams are made anew.

use std::fmt;
use std::str::FromStr;

use super::position::EventPosition;

/// What Redis holds under the checkpoint's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Drawn anew whenever the streams are made again.
    pub epoch: String,
    /// The server's timeline: after a failover positions may stand for other batches than before.
    pub timeline: u32,
    /// The number of the last resync that was completed. It only grows, and no number is used twice.
    pub resync_number: i64,
    pub position: EventPosition,
}

impl Checkpoint {
    /// What stands in the checkpoint's place while the streams of an epoch are being removed: no checkpoint, so if that is
    /// interrupted it is done again.
    pub fn resetting(&self) -> String {
        format!("2 {} resetting", self.epoch)
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { epoch, timeline, resync_number, position: EventPosition { seq, offset } } = self;
        write!(out, "2 {epoch} {timeline} {resync_number} {seq} {offset}")
    }
}

impl FromStr for Checkpoint {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let parts: Vec<&str> = text.split(' ').collect();
        let ["2", epoch, timeline, resync_number, seq, offset] = parts.as_slice() else { return Err(()) };
        Ok(Self {
            epoch: (*epoch).to_owned(),
            timeline: timeline.parse().map_err(drop)?,
            resync_number: resync_number.parse().map_err(drop)?,
            position: EventPosition {
                seq: seq.parse().map_err(drop)?,
                offset: offset.parse().map_err(drop)?,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_survives_its_text() {
        let position = EventPosition { seq: 9, offset: 2 };
        let checkpoint = Checkpoint { epoch: "e-1".into(), timeline: 3, resync_number: 7, position };
        assert_eq!(checkpoint.to_string().parse(), Ok(checkpoint));
    }

    #[test]
    fn what_is_no_checkpoint_is_refused() {
        let resetting = Checkpoint {
            epoch: "e".into(),
            timeline: 1,
            resync_number: 1,
            position: EventPosition::before(1),
        }
        .resetting();
        for text in ["", "2", "1 e 1 1 1", "1 e 1 1 1 1", "2 e 1 1 1 x", "2 e 1 1 1 1 1", &resetting] {
            assert_eq!(text.parse::<Checkpoint>(), Err(()), "{text}");
        }
    }
}
