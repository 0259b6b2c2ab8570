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

/// The key under which Redis knows how far this database's mirror has come.
pub fn marker(system_identifier: u64, database: u32) -> String {
    format!("tailstream:mirror:{system_identifier}:{database}")
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
