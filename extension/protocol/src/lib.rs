//! What the parts of DOPPLER say to each other (see `docs/protocol.md`), described once: for the engine's worker, the popup and the
//! native host as these types, and for the JavaScript modules as `extension/shared/protocol.d.ts`, which `cargo xtask protocol`
//! writes.

pub mod call;
pub mod conversations;
pub mod engine;
pub mod error;
pub mod native;
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

/// No parameters, or an answer that says no more than that it is done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Nothing {}

/// Declares methods.
macro_rules! methods {
    ($($(#[$docs:meta])* $method:ident = $name:literal: $params:ty => $done:ty;)*) => {
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

        /// A line for each method: `"name": { params: …, done: … };`.
        #[cfg(test)]
        pub(crate) fn table(config: &ts_rs::Config) -> String {
            use ts_rs::TS;
            let rows = [$(($name, <$params>::name(config), <$done>::name(config))),*];
            rows.map(|(name, params, done)| format!("  \"{name}\": {{ params: {params}; done: {done} }};\n")).concat()
        }

        /// Shows the types of the parameters and answers to `visitor`.
        #[cfg(test)]
        pub(crate) fn visit(visitor: &mut impl ts_rs::TypeVisitor) {
            $(
                visitor.visit::<$params>();
                visitor.visit::<$done>();
            )*
        }
    };
}
pub(crate) use methods;
