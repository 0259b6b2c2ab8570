//! Tokens: a place in the replay of an org.
//!
//! ```text
//! version 1 | flags 1 | org 8 | incarnation 4 | place 16 | boundary 8? | accounted_until 8? |
//! cursor id and seek generation 12? | clock 16? | seal 16
//! ```
//! Numbers are big-endian; the text is base64url without padding (RFC 4648, section 5). The seal is a keyed BLAKE3 hash under a
//! key of the database, truncated to 128 bits. `org` is a keyed hash of the org id, so a token does not reveal its org. A token
//! gives no access rights: it only states where to continue.

mod key;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

pub use key::signer;

use crate::pg::time::to_unix_time;

const VERSION: u8 = 1;
const SEAL: usize = 16;
/// Length of the longest token in bytes.
const MAX_BYTES: usize = 93;
/// Length of the longest token as text.
pub const MAX_TEXT: usize = MAX_BYTES.div_ceil(3) * 4;

const ARRIVAL: u8 = 1;
const BACKWARD: u8 = 2;
const BOUNDARY: u8 = 4;
const FETCHED_FROM: u8 = 8;
const CLOCK: u8 = 16;
const ACCOUNTED_UNTIL: u8 = 32;
const KNOWN: u8 = ARRIVAL | BACKWARD | BOUNDARY | FETCHED_FROM | CLOCK | ACCOUNTED_UNTIL;

/// Bits of an offset in a batch, including the end of the largest batch.
const OFFSET_BITS: u32 = 17;
/// Bits of a boundary's time that are kept. The other bits are enough for 8.7 trillion positions: 27 years at 10,000 a second.
const MOMENT_BITS: u32 = 20;
const MOMENT: i64 = (1 << MOMENT_BITS) - 1;

/// A place between two events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In event-time order: after an event or, backward, before it.
    Time { created_at: i64, id: i64, backward: bool },
    /// In commit order: before the event at this offset of the batch at this position.
    Arrival { seq: i64, offset: i32, placed_ms: i64 },
}

/// The last position to read, and its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boundary {
    pub seq: i64,
    /// The lowest bits of its milliseconds since the Unix epoch. They distinguish it from a reused position after a rewind.
    moment: i64,
}

impl Boundary {
    /// `ms`: milliseconds since the Unix epoch.
    pub fn new(seq: i64, ms: i64) -> Self {
        Self { seq, moment: ms & MOMENT }
    }

    /// Whether its position was assigned at this time, in PostgreSQL's microseconds.
    pub fn is_of(self, placed_at: i64) -> bool {
        to_unix_time(placed_at).div_euclid(1_000) & MOMENT == self.moment
    }

    fn pack(self) -> i64 {
        self.seq << MOMENT_BITS | self.moment
    }

    fn unpack(packed: i64) -> Self {
        Self { seq: packed >> MOMENT_BITS, moment: packed & MOMENT }
    }
}

/// The durable cursor that a token was fetched from, and the cursor's seek generation at that time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchedFrom {
    pub cursor: i64,
    pub seek_generation: i32,
}

/// The clock of a playback in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Clock {
    /// Without the rate limit.
    pub ideal: i64,
    pub shown: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    pub place: Place,
    /// Distinguishes the org from an erased org with the same id; 0 if the org was not registered.
    pub incarnation: u32,
    /// Only batches up to this position are read.
    pub boundary: Option<Boundary>,
    /// Losses before this time, in PostgreSQL's microseconds, have been reported.
    pub accounted_until: Option<i64>,
    pub fetched_from: Option<FetchedFrom>,
    pub clock: Option<Clock>,
}

impl Token {
    pub fn at(place: Place, incarnation: u32) -> Self {
        Self { place, incarnation, boundary: None, accounted_until: None, fetched_from: None, clock: None }
    }
}

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Not a token of this database, or changed.
    Invalid,
    /// A token of another org.
    Foreign,
}

/// Makes and reads the tokens of one org.
pub struct Signer {
    key: [u8; blake3::KEY_LEN],
    org: [u8; 8],
}

impl Signer {
    pub fn new(secret: &[u8], org: &str) -> Self {
        let of_orgs = blake3::derive_key("tailstream 2026 orgs in tokens of a replay", secret);
        let tag = blake3::keyed_hash(&of_orgs, org.as_bytes());
        let org = tag.as_bytes().first_chunk().copied().unwrap_or_default();
        Self { key: blake3::derive_key("tailstream 2026 seals of tokens of a replay", secret), org }
    }

    fn seal(&self, content: &[u8]) -> [u8; SEAL] {
        let tag = blake3::keyed_hash(&self.key, content);
        tag.as_bytes().first_chunk().copied().unwrap_or_default()
    }

    /// The text of a token.
    pub fn text(&self, token: &Token) -> String {
        let mut room = [0; MAX_TEXT];
        let length = self.write(token, &mut room);
        String::from_utf8_lossy(&room[..length]).into_owned()
    }

    /// Writes the text of a token, which is ASCII, to the start of `room`, which has `MAX_TEXT` bytes. Returns its length.
    pub fn write(&self, token: &Token, room: &mut [u8]) -> usize {
        let mut bytes = heapless::Vec::<u8, MAX_BYTES>::new();
        let mut put = |part: &[u8]| {
            // All parts together fit.
            let _ = bytes.extend_from_slice(part);
        };
        put(&[VERSION, flags(token)]);
        put(&self.org);
        put(&token.incarnation.to_be_bytes());
        let (first, second) = pack(token.place);
        put(&first.to_be_bytes());
        put(&second.to_be_bytes());
        if let Some(boundary) = token.boundary {
            put(&boundary.pack().to_be_bytes());
        }
        if let Some(accounted_until) = token.accounted_until {
            put(&accounted_until.to_be_bytes());
        }
        if let Some(fetched_from) = token.fetched_from {
            put(&fetched_from.cursor.to_be_bytes());
            put(&fetched_from.seek_generation.to_be_bytes());
        }
        if let Some(clock) = token.clock {
            put(&clock.ideal.to_be_bytes());
            put(&clock.shown.to_be_bytes());
        }
        let seal = self.seal(&bytes);
        let _ = bytes.extend_from_slice(&seal);
        URL_SAFE_NO_PAD.encode_slice(&bytes, room).unwrap_or_default()
    }

    pub fn read(&self, text: &str) -> Result<Token, Refusal> {
        let mut bytes = [0; MAX_BYTES];
        let length = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).map_err(|_| Refusal::Invalid)?;
        let (content, seal) =
            bytes.get(..length).and_then(|bytes| bytes.split_last_chunk::<SEAL>()).ok_or(Refusal::Invalid)?;
        let expected = self.seal(content);
        let differ = expected.iter().zip(seal).fold(0, |differ, (ours, theirs)| differ | (ours ^ theirs));
        if differ != 0 {
            return Err(Refusal::Invalid);
        }
        let (org, token) = parse(content).ok_or(Refusal::Invalid)?;
        if org == self.org { Ok(token) } else { Err(Refusal::Foreign) }
    }
}

fn flags(token: &Token) -> u8 {
    let order = match token.place {
        Place::Arrival { .. } => ARRIVAL,
        Place::Time { backward: true, .. } => BACKWARD,
        Place::Time { .. } => 0,
    };
    let optional = [
        (token.boundary.is_some(), BOUNDARY),
        (token.accounted_until.is_some(), ACCOUNTED_UNTIL),
        (token.fetched_from.is_some(), FETCHED_FROM),
        (token.clock.is_some(), CLOCK),
    ];
    optional.iter().fold(order, |flags, (is_there, flag)| if *is_there { flags | flag } else { flags })
}

fn pack(place: Place) -> (i64, i64) {
    match place {
        Place::Time { created_at, id, .. } => (created_at, id),
        Place::Arrival { seq, offset, placed_ms } => (seq, placed_ms << OFFSET_BITS | i64::from(offset)),
    }
}

/// Parses the content of a token.
fn parse(content: &[u8]) -> Option<([u8; 8], Token)> {
    let mut rest = content;
    let ([version, flags], org) = (take::<2>(&mut rest)?, take::<8>(&mut rest)?);
    if version != VERSION || flags & !KNOWN != 0 || flags & (ARRIVAL | BACKWARD) == ARRIVAL | BACKWARD {
        return None;
    }
    let incarnation = u32::from_be_bytes(take(&mut rest)?);
    let (first, second) = (number(&mut rest)?, number(&mut rest)?);
    let place = if flags & ARRIVAL != 0 {
        let offset = i32::try_from(second & ((1 << OFFSET_BITS) - 1)).ok()?;
        Place::Arrival { seq: first, offset, placed_ms: second >> OFFSET_BITS }
    } else {
        Place::Time { created_at: first, id: second, backward: flags & BACKWARD != 0 }
    };
    let mut token = Token::at(place, incarnation);
    if flags & BOUNDARY != 0 {
        token.boundary = Some(Boundary::unpack(number(&mut rest)?));
    }
    if flags & ACCOUNTED_UNTIL != 0 {
        token.accounted_until = Some(number(&mut rest)?);
    }
    if flags & FETCHED_FROM != 0 {
        let cursor = number(&mut rest)?;
        let seek_generation = i32::from_be_bytes(take(&mut rest)?);
        token.fetched_from = Some(FetchedFrom { cursor, seek_generation });
    }
    if flags & CLOCK != 0 {
        let (ideal, shown) = (number(&mut rest)?, number(&mut rest)?);
        token.clock = Some(Clock { ideal, shown });
    }
    rest.is_empty().then_some((org, token))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, others) = rest.split_first_chunk::<N>()?;
    *rest = others;
    Some(*first)
}

fn number(rest: &mut &[u8]) -> Option<i64> {
    take(rest).map(i64::from_be_bytes)
}

#[cfg(test)]
mod tests;
