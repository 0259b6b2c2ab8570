//! Checks that modules import each other in one direction only.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Modules with an order: each may import those before it, and no others.
struct Layers {
    sources: &'static str,
    /// How a path to one of these modules begins.
    prefixes: &'static [&'static str],
    order: &'static [&'static str],
}

/// `lib`, `main` and `mod` connect the others, and tests may use everything.
const UNCHECKED: [&str; 4] = ["lib", "main", "mod", "pg_tests"];

const ALL: [Layers; 3] = [
    Layers {
        sources: "src",
        prefixes: &["crate::"],
        order: &[
            "error",
            "settings",
            "failpoint",
            "pg",
            "shmem",
            "metrics",
            "storage",
            "locks",
            "worker",
            "tier",
            "session",
            "ingest",
            "batch_reader",
            "sequencer",
            "mirror",
            "replay",
            "schema",
        ],
    },
    Layers {
        sources: "src/mirror",
        // No two modules at different depths have the same name, except `resync`.
        prefixes: &["super::", "crate::mirror::"],
        order: &[
            "commands",
            "replies",
            "position",
            "checkpoint",
            "key",
            "entry",
            "server",
            "connection",
            "stream_contents",
            "orgs",
            "events",
            "read_ahead",
            "redis_transaction",
            "reader",
            "state",
            "resync",
            "status",
            "verify",
            "replicator",
        ],
    },
    Layers {
        sources: "bench/src",
        prefixes: &["crate::"],
        order: &[
            "machine",
            "statistics",
            "screen",
            "key",
            "options",
            "backend",
            "cold",
            "server",
            "round",
            "sample",
            "payload",
            "load",
            "generator",
            "results",
            "table",
            "context",
            "ingest",
            "size",
            "purge",
            "mirror",
            "replay",
            "comparison",
        ],
    },
];

/// Error if an import has the wrong direction, or a module is missing in its order.
pub fn check(root: &Path) -> Result<()> {
    let mut wrong = Vec::new();
    for layers in &ALL {
        let sources = root.join(layers.sources);
        for file in rust_files(&sources)? {
            let path = file.strip_prefix(&sources).unwrap_or(&file);
            let text =
                fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            wrong.extend(
                violations(layers, path, &text).into_iter().map(|what| format!("{}/{what}", layers.sources)),
            );
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    wrong.sort();
    bail!("imports against the order in dev/devkit/src/layers.rs:\n{}", wrong.join("\n"));
}

fn rust_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read {}", dir.display()))?.path();
        if path.is_dir() {
            found.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(found)
}

/// The forbidden imports of a file.
fn violations(layers: &Layers, path: &Path, text: &str) -> Vec<String> {
    let Some(module) = path.iter().next().and_then(|first| Path::new(first).file_stem()?.to_str()) else {
        return Vec::new();
    };
    if UNCHECKED.contains(&module) {
        return Vec::new();
    }
    let place = |name: &str| layers.order.iter().position(|known| *known == name);
    let Some(here) = place(module) else {
        return vec![format!("{}: module \"{module}\" has no place in the order", path.display())];
    };
    // `super` in a file at the top is the root of the crate.
    let is_at_top = path.parent().is_none_or(|parent| parent.as_os_str().is_empty());
    let root = Some("super::").filter(|root| is_at_top && !layers.prefixes.contains(root));
    let prefixes: Vec<&str> = layers.prefixes.iter().copied().chain(root).collect();
    let against =
        imports(&prefixes, text).into_iter().filter(|name| place(name).is_some_and(|there| there > here));
    against.map(|name| format!("{}: \"{module}\" imports \"{name}\"", path.display())).collect()
}

/// The names that follow these prefixes in a source file. Comments and strings count, too.
fn imports<'t>(prefixes: &[&str], text: &'t str) -> Vec<&'t str> {
    let mut names = Vec::new();
    for (at, prefix) in prefixes.iter().flat_map(|prefix| text.match_indices(prefix)) {
        let rest = &text[at + prefix.len()..];
        match rest.strip_prefix('{') {
            None => names.push(identifier(rest)),
            Some(group) => names.extend(group_items(group)),
        }
    }
    names
}

/// The first names of the items of a `{…}` group, from behind its bracket.
fn group_items(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut items) = (0, 0, Vec::new());
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                items.push(identifier(group[start..at].trim_start()));
                start = at + 1;
                if character == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    items
}

fn identifier(text: &str) -> &str {
    let end = text.find(|character: char| !character.is_alphanumeric() && character != '_');
    &text[..end.unwrap_or(text.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: &[&str] = &["low", "middle", "high"];
    const CRATE: Layers = Layers { sources: "", prefixes: &["crate::"], order: ORDER };
    const FOLDER: Layers = Layers { sources: "", prefixes: &["super::"], order: ORDER };

    #[test]
    fn super_of_a_file_at_the_top_is_the_crate() {
        assert_eq!(found("low.rs", "use super::high;"), 1);
        assert_eq!(found("low/inner.rs", "use super::high;"), 0);
    }

    fn found(path: &str, text: &str) -> usize {
        violations(&CRATE, Path::new(path), text).len()
    }

    #[test]
    fn imports_go_down_only() {
        assert_eq!(found("high.rs", "use crate::low::A; use crate::middle;"), 0);
        assert_eq!(found("middle/deep/file.rs", "use crate::{low, error::{self, high}, middle::B};"), 0);
        assert_eq!(found("middle/deep/file.rs", "use crate::{low, high::{a, b}};"), 1);
        assert_eq!(found("low/mod.rs", "fn f() { crate::middle::f(crate::high::X) }"), 2);
    }

    #[test]
    fn modules_of_a_folder_import_each_other_by_super() {
        let found = |path: &str, text: &str| violations(&FOLDER, Path::new(path), text).len();
        assert_eq!(found("middle.rs", "use super::low; use crate::high; mod tests { use super::*; }"), 0);
        assert_eq!(found("middle.rs", "use super::{low, high::A};"), 1);
        assert_eq!(found("middle/deep.rs", "use super::super::high;"), 1);
    }

    #[test]
    fn every_module_has_a_place() {
        assert_eq!(found("new.rs", ""), 1);
        assert_eq!(found("lib.rs", "use crate::high;"), 0);
    }

    #[test]
    fn this_repository_keeps_its_order() {
        check(&tailstream_devkit::repository::root().unwrap()).unwrap();
    }
}
