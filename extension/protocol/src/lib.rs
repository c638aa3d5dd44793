//! The messages between the parts of DOPPLER (see `docs/protocol.md`), described once: for the engine's worker, the popup and the
//! native host as these types, and for the JavaScript modules as `extension/shared/protocol.d.ts`, which `cargo xtask protocol`
//! writes.

pub mod conversations;
pub mod engine;
pub mod error;
pub mod frames;
pub mod native;
pub mod page;
pub mod reader;
pub mod ui;
pub mod worker;

#[cfg(test)]
mod declarations;

use serde::{Deserialize, Serialize};

/// A method of one side, which the other side calls.
pub trait Method {
    /// Its name on the wire.
    const NAME: &'static str;
    /// Its parameters.
    type Params;
    /// Its answer.
    type Done;
}

/// A message of one side that answers no request.
pub trait Event {
    /// Its name on the wire.
    const NAME: &'static str;
    /// Its content.
    type Detail;
}

/// No parameters, or an answer that says no more than that it is done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Nothing {}

/// Declares methods. Those that stream have the type of a chunk at the end.
macro_rules! methods {
    ($($(#[$docs:meta])* $method:ident = $name:literal: $params:ty => $done:ty $(, chunk $chunk:ty)?;)*) => {
        $(
            $(#[$docs])*
            #[derive(Debug)]
            pub enum $method {}

            impl crate::Method for $method {
                const NAME: &'static str = $name;
                type Params = $params;
                type Done = $done;
            }
        )*

        /// A line for each method: `"name": { params: …, done: …, chunk: … };`.
        #[cfg(test)]
        pub(crate) fn table(config: &ts_rs::Config) -> String {
            use ts_rs::TS;
            let mut table = String::new();
            $(
                let chunk: Option<String> = None$(.or(Some(<$chunk>::name(config))))?;
                let chunk = chunk.unwrap_or("never".to_owned());
                table += &format!("  {:?}: {{ params: {}; done: {}; chunk: {chunk} }};\n", $name, <$params>::name(config), <$done>::name(config));
            )*
            table
        }

        /// Shows the types of the parameters and answers to `visitor`.
        #[cfg(test)]
        pub(crate) fn visit(visitor: &mut impl ts_rs::TypeVisitor) {
            $(
                visitor.visit::<$params>();
                visitor.visit::<$done>();
                $(visitor.visit::<$chunk>();)?
            )*
        }
    };
}
pub(crate) use methods;

/// Declares events.
macro_rules! events {
    ($($(#[$docs:meta])* $event:ident = $name:literal: $detail:ty;)*) => {
        $(
            $(#[$docs])*
            #[derive(Debug)]
            pub enum $event {}

            impl crate::Event for $event {
                const NAME: &'static str = $name;
                type Detail = $detail;
            }
        )*

        /// A line for each event: `"name": …;`.
        #[cfg(test)]
        pub(crate) fn event_table(config: &ts_rs::Config) -> String {
            use ts_rs::TS;
            [$(format!("  {:?}: {};\n", $name, <$detail>::name(config))),*].concat()
        }

        /// Shows the types of the details to `visitor`.
        #[cfg(test)]
        pub(crate) fn visit_events(visitor: &mut impl ts_rs::TypeVisitor) {
            $(visitor.visit::<$detail>();)*
        }
    };
}
pub(crate) use events;

/// Declares types of which this crate knows nothing but where JavaScript finds them.
macro_rules! elsewhere {
    ($($(#[$docs:meta])* $name:ident = $there:literal;)*) => {
        $(
            $(#[$docs])*
            #[derive(Debug)]
            #[cfg_attr(test, derive(ts_rs::TS), ts(type = $there))]
            pub enum $name {}
        )*
    };
}
pub(crate) use elsewhere;
