//! The types in TypeScript, and whether `extension/shared/protocol.d.ts` has them as they are.

use std::any::TypeId;
use std::collections::BTreeMap;

use ts_rs::{Config, TS, TypeVisitor};

use crate::error::FailureData;
use crate::native::{FORWARDED, HOST_NAME, HostFailure, PROTOCOL};
use crate::worker::Launch;
use crate::{Nothing, conversations, engine, frames, native, page, reader, ui, worker};

/// Where the types are, where the values are, and the variable that has them written there.
const TYPES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/protocol.d.ts");
const VALUES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/protocol.js");
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

/// `// Written by …`
const HEADER: &str = "// Written by `cargo xtask protocol` from extension/protocol.\n\n";

/// The interfaces of methods and events: a line for each.
fn tables(config: &Config) -> String {
    let table = |docs: &str, name: &str, rows: &str| format!("/** {docs} */\nexport interface {name} {{\n{rows}}}\n\n");
    [
        table("Native messages: requests of the service worker to the native host.", "NativeMethods", &native::table(config)),
        table(
            "Requests of the engine's worker to the offscreen document, besides forwarded native messages.",
            "WorkerMethods",
            &worker::table(config),
        ),
        table("Requests of the offscreen document to the engine's worker.", "EngineMethods", &engine::table(config)),
        table("Events of the engine's worker.", "EngineEvents", &engine::event_table(config)),
        table("Requests of the extension's own pages to the offscreen document.", "UiMethods", &ui::table(config)),
        table("The same, about conversations.", "ConversationMethods", &conversations::table(config)),
        table("Events for the extension's own pages.", "UiEvents", &(ui::event_table(config) + &conversations::event_table(config))),
        table("Requests of web pages to the offscreen document.", "PageMethods", &page::table(config)),
        table("Events for web pages.", "PageEvents", &page::event_table(config)),
    ]
    .concat()
}

fn declarations() -> String {
    let mut declarations = Declarations { config: Config::new().with_large_int("number"), types: BTreeMap::new() };
    native::visit(&mut declarations);
    worker::visit(&mut declarations);
    engine::visit(&mut declarations);
    engine::visit_events(&mut declarations);
    ui::visit(&mut declarations);
    ui::visit_events(&mut declarations);
    conversations::visit(&mut declarations);
    conversations::visit_events(&mut declarations);
    page::visit(&mut declarations);
    page::visit_events(&mut declarations);
    declarations.visit::<HostFailure>();
    declarations.visit::<FailureData>();
    declarations.visit::<Launch>();
    declarations.visit::<reader::FetchRange>();
    declarations.visit::<reader::AbortRange>();
    // A frame's type is that of what it carries; here of anything.
    declarations.visit::<frames::Request<Nothing>>();
    declarations.visit::<frames::PriorityChange>();
    declarations.visit::<frames::PartsRead>();
    declarations.visit::<frames::Answer<Nothing>>();
    declarations.visit::<frames::Told<Nothing>>();
    declarations.visit::<frames::Ask<Nothing>>();
    declarations.visit::<frames::Reply<Nothing>>();
    let Declarations { config, types } = declarations;
    let types: Vec<String> = types.into_values().map(|(_, declaration)| declaration).collect();
    let values = values().map(|(docs, name, value)| format!("/** {docs} */\nexport const {name}: {value};\n")).concat();
    format!("{HEADER}{values}\n{}{}", tables(&config), types.join("\n"))
}

/// Values that JavaScript needs at run time: documentation, name and value of each.
fn values() -> [(&'static str, &'static str, String); 3] {
    [
        ("The native host's name for browsers.", "HOST_NAME", format!("{HOST_NAME:?}")),
        ("Version of native messages.", "PROTOCOL", PROTOCOL.to_string()),
        ("Native messages that are forwarded for the offscreen document.", "FORWARDED", format!("{FORWARDED:?}")),
    ]
}

fn constants() -> String {
    HEADER.to_owned() + &values().map(|(_, name, value)| format!("export const {name} = {value};\n")).concat()
}

#[test]
fn declarations_files_equal_types() {
    for (path, content) in [(TYPES, declarations()), (VALUES, constants())] {
        if std::env::var_os(WRITE).is_some() {
            std::fs::write(path, content).expect("the file can be written");
        } else {
            let written = std::fs::read_to_string(path).expect("the file is there");
            assert!(written == content, "{path} is out of date: run `cargo xtask protocol`");
        }
    }
}
