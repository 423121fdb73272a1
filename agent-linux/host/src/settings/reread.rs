//! Settings that are read a second time while a process runs: what is new in them, and what is newly wrong.

use super::{Settings, Warning};

impl Settings {
    /// The keys whose values differ between these settings and `other`, sorted. Values stay out of it: some are
    /// secret.
    pub fn differing_keys(&self, other: &Settings) -> Vec<String> {
        let mut keys: Vec<&str> = self.keys().chain(other.keys()).collect();
        keys.sort_unstable();
        keys.dedup();
        let values = |settings: &Settings, key: &str| -> Vec<String> {
            let entries = settings.entries.iter().filter(|entry| entry.key == key);
            entries.map(|entry| entry.value.clone()).collect()
        };
        keys.into_iter().filter(|key| values(self, key) != values(other, key)).map(str::to_owned).collect()
    }

    /// What is wrong here and was not wrong in `before`, on whatever line: the first thing found.
    pub fn newly_wrong(&self, before: &Settings) -> Option<Warning> {
        let known = before.warnings();
        let same = |a: &Warning, b: &Warning| a.key == b.key && a.problem == b.problem;
        self.warnings().into_iter().find(|warning| {
            let count = |list: &[Warning]| list.iter().filter(|other| same(warning, other)).count();
            count(&self.warnings()) > count(&known)
        })
    }

    /// `file:line: ` of a key, to begin a message with; empty when it came from nowhere.
    pub fn place_of(&self, key: &str) -> String {
        self.origin(key).map(|(file, line)| format!("{}:{line}: ", file.display())).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn settings(text: &str) -> Settings {
        Settings::parse(text, Path::new("broker.conf")).unwrap()
    }

    #[test]
    fn what_differs() {
        let (before, after) = (settings("a = 1\nb = 2\nc = 3\n"), settings("c = 3\nb = 4\nd = 5\n"));
        assert_eq!(after.differing_keys(&before), ["a", "b", "d"]);
        assert!(before.differing_keys(&settings("# x\na=1\nb=2\nc=3")).is_empty());
    }

    #[test]
    fn what_is_newly_wrong() {
        let before = settings("no equals sign\na = 1\n");
        assert_eq!(settings("# moved\nno equals sign\na = 2\n").newly_wrong(&before), None);
        let wrong = settings("a = 1\nno equals sign\nanother one\n").newly_wrong(&before).unwrap();
        assert_eq!(wrong.to_string(), "broker.conf:2: the line is ignored: it has no '='");
        assert_eq!(settings("a = 1\nb = 2").place_of("b"), "broker.conf:2: ");
        assert_eq!(before.place_of("none"), "");
    }
}
