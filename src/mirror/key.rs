//! The keys in Redis.

/// How an org's key is made: `tailstream.stream_key` with `{database}` filled in.
///
/// For Redis Cluster the hash tag goes around the place of the org id: `tailstream:stream:{{org}}` makes
/// `tailstream:stream:{acme}`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Template {
    setting: String,
    text: String,
}

impl Template {
    /// `None` if two orgs would have the same key.
    pub fn new(setting: &str, database: &str) -> Option<Self> {
        setting
            .contains("{org}")
            .then(|| Self { setting: setting.to_owned(), text: setting.replace("{database}", database) })
    }

    /// Whether it was made from this setting.
    pub fn is_of(&self, setting: &str) -> bool {
        self.setting == setting
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn key(&self, org: &str) -> String {
        self.text.replace("{org}", org)
    }
}

/// The keys that the mirror of a database has for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnKeys {
    /// How far it has come.
    pub checkpoint: String,
    /// A hash of all streams it has made: key of the stream → org id. It is written in the same transactions as the
    /// streams, so whatever age of data Redis comes back with, it lists the streams of that age, those of orgs that were
    /// erased since among them. The field without a name holds the epoch.
    pub registry: String,
}

impl OwnKeys {
    pub fn new(system_identifier: u64, database: u32) -> Self {
        Self::beside(format!("tailstream:mirror:{system_identifier}:{database}"))
    }

    /// Those that go with a checkpoint's key.
    pub fn beside(checkpoint: String) -> Self {
        let registry = format!("{checkpoint}:streams");
        Self { checkpoint, registry }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_tag_stays_around_the_org() {
        let plain = Template::new("tailstream:stream:{org}", "app").unwrap();
        assert_eq!(plain.key("acme"), "tailstream:stream:acme");
        let tagged = Template::new("{database}:{{org}}", "app").unwrap();
        assert_eq!(tagged.key("acme"), "app:{acme}");
        assert_eq!(Template::new("tailstream:stream", "app"), None);
    }

    #[test]
    fn an_org_id_is_taken_as_it_is() {
        let template = Template::new("s:{org}", "app").unwrap();
        assert_eq!(template.key("{org}{database}"), "s:{org}{database}");
    }
}
