//! Commands in the protocol of Redis.
//!
//! The client library packs commands one by one and then all together, which copies each payload three times. At a
//! hundred thousand entries a second, these copies are most of the work. The format is simple: a command is an array of
//! strings, and each string is preceded by its length.

/// Commands in the format in which they are sent.
#[derive(Debug, Default, Clone)]
pub struct Commands {
    bytes: Vec<u8>,
    count: usize,
}

impl Commands {
    /// Begins a command of `words` words, including its name. The caller adds the words.
    pub fn begin(&mut self, words: usize) -> &mut Self {
        self.count += 1;
        self.header(b'*', words)
    }

    pub fn word(&mut self, word: &str) -> &mut Self {
        self.header(b'$', word.len());
        self.bytes.extend_from_slice(word.as_bytes());
        self.bytes.extend_from_slice(b"\r\n");
        self
    }

    pub fn number(&mut self, number: i64) -> &mut Self {
        self.word(itoa::Buffer::new().format(number))
    }

    /// Adds the id of a stream entry as one word.
    pub fn stream_id(&mut self, ms: i64, seq: i64) -> &mut Self {
        let (mut first, mut second) = (itoa::Buffer::new(), itoa::Buffer::new());
        let (first, second) = (first.format(ms), second.format(seq));
        self.header(b'$', first.len() + 1 + second.len());
        for part in [first, "-", second, "\r\n"] {
            self.bytes.extend_from_slice(part.as_bytes());
        }
        self
    }

    /// Adds a complete command.
    pub fn command(&mut self, words: &[&str]) -> &mut Self {
        self.begin(words.len());
        words.iter().fold(self, |commands, word| commands.word(word))
    }

    fn header(&mut self, kind: u8, number: usize) -> &mut Self {
        self.bytes.push(kind);
        self.bytes.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
        self.bytes.extend_from_slice(b"\r\n");
        self
    }

    /// The number of commands, which is also the number of replies.
    pub fn count(&self) -> usize {
        self.count
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds `other` after these commands. The bytes of `other` are not copied if its buffer has room.
    pub fn append(&mut self, other: Self) {
        let mut bytes = other.bytes;
        bytes.splice(0..0, std::mem::take(&mut self.bytes));
        self.bytes = bytes;
        self.count += other.count;
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_packed_as_by_the_client_library() {
        let mut commands = Commands::default();
        commands.command(&["SET", "clé", ""]);
        commands.begin(4).word("XTRIM").word("k").word("MINID").stream_id(1_700_000_000_000, 42);
        commands.begin(2).word("GET").number(-7);
        let mut theirs = redis::pipe();
        theirs.cmd("SET").arg("clé").arg("");
        theirs.cmd("XTRIM").arg("k").arg("MINID").arg("1700000000000-42");
        theirs.cmd("GET").arg(-7);
        assert_eq!(commands.count(), 3);
        assert_eq!(commands.into_bytes(), theirs.get_packed_pipeline());
    }
}
