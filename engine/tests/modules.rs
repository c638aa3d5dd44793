//! The engine's modules import one another in one direction only.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Adds the modules that the sources under `path` name by `crate::…`, outside of comments and unit tests.
fn add_imports(path: &Path, imports: &mut BTreeSet<String>) {
    if path.is_dir() {
        for entry in path.read_dir().expect("a folder") {
            add_imports(&entry.expect("an entry").path(), imports);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        let text = std::fs::read_to_string(path).expect("a source");
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            assert!(!line.contains("crate::{"), "{}: one `use` for each module, please", path.display());
            let names = line.split("crate::").skip(1).map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next());
            imports.extend(names.flatten().map(str::to_owned));
        }
    }
}

#[test]
fn modules_imports_form_no_cycle() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut modules: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for entry in source.read_dir().expect("the sources") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        if !["bin", "lib"].contains(&name.as_str()) {
            add_imports(&path, modules.entry(name).or_default());
        }
    }
    for (name, imports) in &mut modules {
        imports.retain(|other| other != name);
    }
    assert!(modules["exec"].contains("kernels"), "imports are not found");
    // Modules that import none of those that are left go first; in a circle there are none.
    while let Some(name) =
        modules.iter().find(|(_, imports)| !imports.iter().any(|i| modules.contains_key(i))).map(|(name, _)| name.clone())
    {
        modules.remove(&name);
    }
    assert!(modules.is_empty(), "these modules, or some that they import, import one another in a circle: {modules:#?}");
}
