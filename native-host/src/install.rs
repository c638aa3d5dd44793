//! Registering the host with browsers, and taking all of it away again.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::browsers::{BROWSERS, Browser, in_data_folder};
use crate::config::{Config, write_file};
use crate::error::{HostError, Result};
use crate::places::{Places, Scope};
use crate::registration::{Manifest, Registration, remove_file};
use crate::{EXTENSION_ID, HOST_NAME, extension_id, origin};

/// Which browsers a command is about.
#[derive(Debug)]
pub struct Selection {
    /// Names from [`BROWSERS`].
    pub browsers: Vec<String>,
    /// A browser's `--user-data-dir`.
    pub user_data_dir: Option<PathBuf>,
    /// Whose browsers.
    pub scope: Scope,
}

impl Selection {
    /// Those that are named; without names all that we know.
    ///
    /// # Errors
    /// When a name is unknown.
    pub fn registrations(&self, places: &Places) -> Result<Vec<Registration>> {
        let mut chosen: Vec<Registration> = self.user_data_dir.iter().map(|folder| in_data_folder("--user-data-dir", folder)).collect();
        for name in &self.browsers {
            chosen.push(Browser::by_name(name)?.registration(places, self.scope));
        }
        Ok(if self.is_empty() { known(places, self.scope) } else { chosen })
    }

    fn is_empty(&self) -> bool {
        self.browsers.is_empty() && self.user_data_dir.is_none()
    }
}

fn known(places: &Places, scope: Scope) -> Vec<Registration> {
    BROWSERS.iter().map(|browser| browser.registration(places, scope)).collect()
}

/// Copies `program` to its place and registers it with the chosen browsers, without a choice with all that are found; for all users
/// with all that we know. What it did and what comes next, a line each.
///
/// # Errors
/// When nothing is found, or something cannot be written; what was done until then stays, and trying again does the rest.
pub fn install(places: &Places, selection: &Selection, program: &Path, extensions: &[String]) -> Result<Vec<String>> {
    let extensions = extensions.iter().map(|id| checked_id(id)).collect::<Result<Vec<_>>>()?;
    let mut chosen = selection.registrations(places)?;
    if selection.is_empty() && selection.scope == Scope::User {
        chosen.retain(Registration::is_found);
    }
    if chosen.is_empty() {
        let names = BROWSERS.map(|browser| browser.name).join(", ");
        return Err(HostError::Command(format!("no browser has been used here yet: start one, or name one with --browser ({names})")));
    }
    let place = places.program(selection.scope);
    if fs::canonicalize(program).ok() != fs::canonicalize(&place).ok() {
        let bytes = fs::read(program).map_err(HostError::at(program))?;
        write_file(&place, &bytes, 0o755).map_err(HostError::at(&place))?;
    }
    let mut without_folders = false;
    if selection.scope == Scope::User {
        Config::ensure(&places.config_file())?;
        without_folders = Config::load(&places.config_file())?.roots.is_empty();
    }
    let mut done = vec![format!("program: {}", place.display())];
    for registration in chosen {
        let mut ids = vec![EXTENSION_ID.to_owned()];
        ids.extend(registered_ids(&registration).into_iter().chain(extensions.clone()));
        let mut seen = HashSet::new();
        ids.retain(|id| seen.insert(id.clone()));
        registration.add(&Manifest::new(&place, ids.iter().map(String::as_str)))?;
        done.push(format!("{}: registered in {}", registration.title, registration.manifest.display()));
    }
    if without_folders {
        // Its folder is seldom where a shell looks for programs.
        let program = place.display();
        done.push(format!("next, choose what browsers may read: \"{program}\" models find   and   \"{program}\" models add FOLDER"));
    }
    Ok(done)
}

/// An extension's id, also as it stands in the address of its pages.
fn checked_id(id: &str) -> Result<String> {
    let address = if id.starts_with("chrome-extension://") { id.to_owned() } else { origin(id) };
    let id = extension_id(&address).map(str::to_owned);
    id.ok_or_else(|| HostError::Command(format!("`{address}` is no extension's address: its id has 32 letters from a to p")))
}

/// The extensions that may start the host already: installing again takes none away.
fn registered_ids(registration: &Registration) -> Vec<String> {
    let manifest = registration.registered().and_then(|path| Manifest::read(&path).ok()).filter(|manifest| manifest.name == HOST_NAME);
    let origins = manifest.map(|manifest| manifest.allowed_origins).unwrap_or_default();
    origins.iter().filter_map(|origin| extension_id(origin)).map(str::to_owned).collect()
}

/// Makes the chosen browsers, without a choice all, forget the host. When none knows it any more the program goes too, and the list of
/// folders unless `keep_models`. What it did, a line each.
///
/// # Errors
/// When something cannot be removed.
pub fn uninstall(places: &Places, selection: &Selection, keep_models: bool) -> Result<Vec<String>> {
    let mut done = Vec::new();
    for registration in selection.registrations(places)? {
        if registration.remove()? {
            done.push(format!("{}: forgotten", registration.title));
        }
    }
    if known(places, selection.scope).iter().any(|registration| registration.registered().is_some()) {
        done.push("other browsers still use the program: it stays".to_owned());
        return Ok(done);
    }
    // Where registries name it, the manifest lies beside the program.
    let mut files: Vec<_> = known(places, selection.scope).into_iter().map(|registration| registration.manifest).collect();
    if selection.scope == Scope::User && !keep_models {
        files.push(places.config_file());
    }
    // The last, because Windows deletes no program that runs, and this may be it.
    let program = places.program(selection.scope);
    files.push(program.clone());
    for file in files {
        if file.symlink_metadata().is_err() {
            continue;
        }
        match remove_file(&file) {
            Err(_) if cfg!(windows) && file == program => {
                done.push(format!("delete {} yourself: Windows keeps a program as long as it runs", file.display()));
            }
            removed => {
                removed?;
                done.push(format!("removed {}", file.display()));
            }
        }
    }
    Ok(done)
}

/// What each browser knows, a line each.
///
/// # Errors
/// When a name is unknown.
pub fn status(places: &Places, selection: &Selection) -> Result<Vec<String>> {
    let describe = |registration: Registration| match registration.registered() {
        Some(path) => match Manifest::read(&path) {
            Ok(manifest) => format!("{}: registered, {} starts {}", registration.title, path.display(), manifest.path.display()),
            Err(error) => format!("{}: registered, but unusable: {error}", registration.title),
        },
        None if registration.is_found() => format!("{}: not registered", registration.title),
        None => format!("{}: not found", registration.title),
    };
    Ok(selection.registrations(places)?.into_iter().map(describe).collect())
}
