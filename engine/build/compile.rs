//! WESL to WGSL: repetitions, imports, conditions, dead code; then naga's validation.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use naga::valid::{Capabilities, ValidationFlags, Validator};
use wesl::{CompileOptions, Error, Feature, Features, FileResolver, ModulePath, NoMangler, ResolveError, Resolver};

use crate::reflect::Reflection;
use crate::repeat;
use crate::variants::Table;

/// What a kernel may ask of a device.
const CAPABILITIES: Capabilities =
    Capabilities::SHADER_FLOAT16.union(Capabilities::SHADER_FLOAT16_IN_FLOAT32).union(Capabilities::SUBGROUP);

pub(crate) struct Compiler<'a> {
    table: &'a Table,
    shaders: PathBuf,
    resolver: Repeating,
    /// All known features, off: `@if` on any other name is an error.
    features: HashMap<String, Feature>,
    browser: bool,
}

/// Files with their repetitions written out.
struct Repeating(FileResolver);

impl Resolver for Repeating {
    fn resolve_source<'a>(&'a self, path: &ModulePath) -> Result<Cow<'a, str>, ResolveError> {
        let source = self.0.resolve_source(path)?;
        let expanded = repeat::expand(&source).map_err(|message| ResolveError::Error(Error::Custom(message).into()))?;
        Ok(Cow::Owned(expanded.into_owned()))
    }

    fn display_name(&self, path: &ModulePath) -> Option<String> {
        self.0.display_name(path)
    }

    fn fs_path(&self, path: &ModulePath) -> Option<PathBuf> {
        self.0.fs_path(path)
    }
}

/// A feature of every variant: the text is for a browser, not for naga.
const BROWSER: &str = "browser";

impl<'a> Compiler<'a> {
    /// `browser`: write what Chromium knows and naga does not.
    pub(crate) fn new(shaders: &Path, table: &'a Table, browser: bool) -> Self {
        let features = table.features().into_iter().chain([BROWSER]).map(|f| (f.to_owned(), Feature::Disable)).collect();
        Self { table, shaders: shaders.to_owned(), resolver: Repeating(FileResolver::new(shaders)), features, browser }
    }

    pub(crate) fn path(&self, kernel: &str) -> PathBuf {
        self.shaders.join(kernel).with_extension("wesl")
    }

    /// The WGSL of a variant and its interface. Adds the files it was made from to `sources`.
    ///
    /// What naga validates is the text for native devices: it has the same interface.
    pub(crate) fn compile(&self, kernel: &str, features: &[&str], sources: &mut BTreeSet<PathBuf>) -> Result<(String, Reflection), String> {
        let native = self.expand(kernel, features, sources)?;
        let source = format!("enable f16;\n{native}");
        let path = self.path(kernel).display().to_string();
        let module = naga::front::wgsl::parse_str(&source).map_err(|e| e.emit_to_string_with_path(&source, &path))?;
        let mut validator = Validator::new(ValidationFlags::all(), CAPABILITIES);
        validator.validate(&module).map_err(|e| e.emit_to_string_with_path(&source, &path))?;
        let reflection = Reflection::of(&module)?;
        if !self.browser {
            return Ok((format!("{}{native}", directives(&reflection, "")), reflection));
        }
        let browser = [features, &[BROWSER]].concat();
        let body = self.expand(kernel, &browser, sources)?;
        Ok((format!("{}{body}", directives(&reflection, &body)), reflection))
    }

    /// A variant as WGSL without directives.
    fn expand(&self, kernel: &str, features: &[&str], sources: &mut BTreeSet<PathBuf>) -> Result<String, String> {
        let root: ModulePath = format!("package::{kernel}").parse().map_err(|e| format!("{e}"))?;
        let mut flags = self.features.clone();
        flags.extend(features.iter().copied().chain(self.table.implied_by(features)).map(|f| (f.to_owned(), Feature::Enable)));
        // Only the native text is checked here: what wesl does not know either is in the one for browsers.
        let validate = !features.contains(&BROWSER);
        let options = CompileOptions { features: Features { default: Feature::Error, flags }, validate, ..CompileOptions::default() };
        // Names stay as they are written; naga reports two things of one name.
        let compiled = wesl::compile_sourcemap(&root, &self.resolver, &NoMangler, &options).map_err(|e| e.to_string())?;
        sources.extend(compiled.modules.iter().filter_map(|module| self.resolver.fs_path(module)));
        let mut syntax = compiled.syntax;
        if !syntax.global_directives.is_empty() {
            return Err("leave out `enable`: the build adds what the code needs".to_owned());
        }
        syntax.imports.clear();
        Ok(syntax.to_string())
    }
}

/// What has to be enabled for a text: naga 30 knows subgroups without being told, and refuses these lines.
fn directives(reflection: &Reflection, browser: &str) -> String {
    let matrices = browser.contains("subgroup_matrix_");
    let all = [
        ("enable f16;\n", reflection.needs_f16),
        ("enable subgroups;\n", reflection.needs_subgroups && !browser.is_empty()),
        ("enable chromium_experimental_subgroup_matrix;\n", matrices),
        // What is the same within a subgroup and not within the workgroup is not seen to be.
        ("diagnostic(off, chromium.subgroup_matrix_uniformity);\n", matrices),
    ];
    all.iter().filter(|(_, needed)| *needed).map(|(line, _)| *line).collect()
}
