//! WESL to WGSL: imports, conditions, dead code; then naga's validation.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use naga::valid::{Capabilities, ValidationFlags, Validator};
use wesl::{CompileOptions, Feature, Features, FileResolver, ModulePath, NoMangler, Resolver};

use crate::reflect::Reflection;
use crate::variants::Table;

/// What a kernel may ask of a device.
const CAPABILITIES: Capabilities =
    Capabilities::SHADER_FLOAT16.union(Capabilities::SHADER_FLOAT16_IN_FLOAT32).union(Capabilities::SUBGROUP);

pub(crate) struct Compiler<'a> {
    table: &'a Table,
    shaders: PathBuf,
    resolver: FileResolver,
    /// All known features, off: `@if` on any other name is an error.
    features: HashMap<String, Feature>,
    browser: bool,
}

impl<'a> Compiler<'a> {
    /// `browser`: write the directives that Chromium needs and naga does not know.
    pub(crate) fn new(shaders: &Path, table: &'a Table, browser: bool) -> Self {
        let features = table.features().into_iter().map(|f| (f.to_owned(), Feature::Disable)).collect();
        Self { table, shaders: shaders.to_owned(), resolver: FileResolver::new(shaders), features, browser }
    }

    pub(crate) fn path(&self, kernel: &str) -> PathBuf {
        self.shaders.join(kernel).with_extension("wesl")
    }

    /// The WGSL of a variant and its interface. Adds the files it was made from to `sources`.
    pub(crate) fn compile(&self, kernel: &str, features: &[&str], sources: &mut BTreeSet<PathBuf>) -> Result<(String, Reflection), String> {
        let root: ModulePath = format!("package::{kernel}").parse().map_err(|e| format!("{e}"))?;
        let mut flags = self.features.clone();
        flags.extend(features.iter().copied().chain(self.table.implied_by(features)).map(|f| (f.to_owned(), Feature::Enable)));
        let options = CompileOptions { features: Features { default: Feature::Error, flags }, ..CompileOptions::default() };
        // Names stay as they are written; naga reports two things of one name.
        let compiled = wesl::compile_sourcemap(&root, &self.resolver, &NoMangler, &options).map_err(|e| e.to_string())?;
        sources.extend(compiled.modules.iter().filter_map(|module| self.resolver.fs_path(module)));
        let mut syntax = compiled.syntax;
        if !syntax.global_directives.is_empty() {
            return Err("leave out `enable`: the build adds what the code needs".to_owned());
        }
        syntax.imports.clear();
        let body = syntax.to_string();

        let source = format!("enable f16;\n{body}");
        let path = self.path(kernel).display().to_string();
        let module = naga::front::wgsl::parse_str(&source).map_err(|e| e.emit_to_string_with_path(&source, &path))?;
        let mut validator = Validator::new(ValidationFlags::all(), CAPABILITIES);
        validator.validate(&module).map_err(|e| e.emit_to_string_with_path(&source, &path))?;
        let reflection = Reflection::of(&module)?;
        Ok((format!("{}{body}", self.directives(&reflection)), reflection))
    }

    fn directives(&self, reflection: &Reflection) -> String {
        let mut text = String::new();
        if reflection.needs_f16 {
            text += "enable f16;\n";
        }
        if reflection.needs_subgroups && self.browser {
            text += "enable subgroups;\n";
        }
        text
    }
}
