//! The types in TypeScript, and whether `extension/shared/protocol.d.ts` has them as they are.

use std::any::TypeId;
use std::collections::BTreeMap;

use ts_rs::{Config, TS, TypeVisitor};

use crate::engine::Listed;
use crate::native::{self, HOST_NAME, HostFailure, PROTOCOL};
use crate::worker;

/// Where the types are, and the variable that has them written there.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/protocol.d.ts");
const WRITE: &str = "DOPPLER_WRITE_PROTOCOL";

/// Declarations by name, of everything that was visited and what it refers to.
struct Declarations {
    config: Config,
    types: BTreeMap<String, (TypeId, String)>,
}

impl TypeVisitor for Declarations {
    fn visit<T: TS + 'static + ?Sized>(&mut self) {
        T::visit_generics(self);
        // Only derived types have declarations.
        if T::output_path().is_none() {
            return;
        }
        let (name, id) = (T::ident(&self.config), TypeId::of::<T>());
        if let Some((known, _)) = self.types.get(&name) {
            assert_eq!(*known, id, "two types have the name {name}");
            return;
        }
        let declaration = format!("{}export {}\n", T::docs().unwrap_or_default(), T::decl(&self.config));
        self.types.insert(name, (id, declaration));
        T::visit_dependencies(self);
    }
}

fn declarations() -> String {
    let mut declarations = Declarations { config: Config::new().with_large_int("number"), types: BTreeMap::new() };
    native::visit(&mut declarations);
    worker::visit(&mut declarations);
    declarations.visit::<HostFailure>();
    declarations.visit::<Listed>();
    let Declarations { config, types } = declarations;
    let types: Vec<String> = types.into_values().map(|(_, declaration)| declaration).collect();
    format!(
        "// Written by `cargo xtask protocol` from extension/protocol.\n\n\
        // Constants: the type check compares their copies in JavaScript.\n\
        export type HostName = {HOST_NAME:?};\nexport type NativeProtocol = {PROTOCOL};\n\n\
        /** Native messages: what the service worker asks the native host. */\nexport interface NativeMethods {{\n{}}}\n\n\
        /** What the engine's worker asks the offscreen document. */\nexport interface WorkerMethods {{\n{}}}\n\n{}",
        native::table(&config),
        worker::table(&config),
        types.join("\n"),
    )
}

#[test]
fn declarations_file_equals_types() {
    let declarations = declarations();
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(FILE, declarations).expect("the file can be written");
    } else {
        let written = std::fs::read_to_string(FILE).expect("the file is there");
        assert!(written == declarations, "extension/shared/protocol.d.ts is out of date: run `cargo xtask protocol`");
    }
}
