//! The checkpoint: how far the mirror has come, stored in Redis.
//!
//! The mirror sets the checkpoint in the same Redis transaction as the entries before it, and reads it before it sends
//! more. After a crash of either side, the checkpoint therefore tells which entries Redis has. If Redis comes back with
//! older data, or a replica takes over without the last writes, the checkpoint is as old as that data.
//!
//! The position in the checkpoint covers appended entries. Other work (a stream that was resynced, or removed with its
//! org) is covered by the number of the last such resync. If the number in Redis is smaller than the number in the
//! table, Redis has lost a resync, and the mirror writes all streams again.

use std::fmt;
use std::str::FromStr;

use super::position::EventPosition;

/// The value of the checkpoint's key in Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The identity of a complete set of streams. A new one is drawn whenever all streams are written again.
    pub epoch: String,
    /// The server's timeline. After a failover, a position may refer to a different batch than before.
    pub timeline: u32,
    /// The number of the last completed resync. It only grows, and no number is used twice.
    pub resync_number: i64,
    pub position: EventPosition,
}

impl Checkpoint {
    /// The value of the key while the streams of a former epoch are removed. It does not parse as a checkpoint, so an
    /// interrupted reset starts again.
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
    fn the_text_of_a_checkpoint_parses_to_the_same_checkpoint() {
        let position = EventPosition { seq: 9, offset: 2 };
        let checkpoint = Checkpoint { epoch: "e-1".into(), timeline: 3, resync_number: 7, position };
        assert_eq!(checkpoint.to_string().parse(), Ok(checkpoint));
    }

    #[test]
    fn other_texts_do_not_parse_as_a_checkpoint() {
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
