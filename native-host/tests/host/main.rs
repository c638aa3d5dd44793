//! The native host: its parts, and the program as a browser and as a user start it.

mod catalog;
mod changes;
mod doctor;
mod frames;
mod install;
mod messages;
mod process;
mod server;
