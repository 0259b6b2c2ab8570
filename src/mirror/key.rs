//! Keys in Redis.

/// The template of the keys of streams: `tailstream.stream_key` with `{database}` replaced.
///
/// For Redis Cluster, the hash tag encloses the org id: `tailstream:stream:{{org}}` makes `tailstream:stream:{acme}`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Template {
    setting: String,
    text: String,
}

impl Template {
    /// `None` if the setting has no `{org}`: all orgs would have the same key.
    pub fn new(setting: &str, database: &str) -> Option<Self> {
        setting
            .contains("{org}")
            .then(|| Self { setting: setting.to_owned(), text: setting.replace("{database}", database) })
    }

    /// Whether the template was made from this value of the setting.
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

/// Keys for the mirror's own state of one database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnKeys {
    /// The key of the checkpoint.
    pub checkpoint: String,
    /// The key of the registry, a hash of all streams that the mirror has made: key of the stream → org id. It is
    /// written in the same transactions as the streams. If Redis comes back with older data, the registry therefore
    /// lists the streams in that data, including those of orgs that were erased since. The field with an empty name
    /// holds the epoch.
    pub registry: String,
}

impl OwnKeys {
    pub fn new(system_identifier: u64, database: u32) -> Self {
        Self::beside(format!("tailstream:mirror:{system_identifier}:{database}"))
    }

    /// The keys of a mirror whose checkpoint has this key.
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
    fn placeholders_in_an_org_id_are_not_replaced() {
        let template = Template::new("s:{org}", "app").unwrap();
        assert_eq!(template.key("{org}{database}"), "s:{org}{database}");
    }
}
