//! Where each browser of the Chromium family looks for native hosts: all that we know of browsers.
//!
//! From <https://developer.chrome.com/docs/extensions/develop/concepts/native-messaging> and
//! <https://learn.microsoft.com/microsoft-edge/extensions/developer-guide/native-messaging>; Brave and Vivaldi as others traced them on
//! Linux.

use std::path::Path;

use crate::HOST_NAME;
use crate::error::{HostError, Result};
use crate::places::{Places, Scope};
use crate::registration::Registration;

/// A browser.
#[derive(Debug)]
pub struct Browser {
    /// What `--browser` calls it.
    pub name: &'static str,
    /// What its maker calls it.
    pub title: &'static str,
    /// Its folders on Linux; the user's is in `~/.config`.
    pub linux: Folders,
    /// Its folders on macOS; the user's is in `~/Library/Application Support`.
    pub mac: Folders,
    /// Its key below `HKEY_CURRENT_USER` or `HKEY_LOCAL_MACHINE`.
    pub windows: &'static str,
}

/// Folders of a browser.
#[derive(Debug)]
pub struct Folders {
    /// What it keeps for a user, relative to the user's folder for such.
    pub user: &'static str,
    /// The hosts for all users.
    pub system: &'static str,
}

/// All that we know. On Linux Brave and Vivaldi look for the hosts of all users where Chrome does.
pub const BROWSERS: [Browser; 5] = [
    Browser {
        name: "chrome",
        title: "Google Chrome",
        linux: Folders { user: "google-chrome", system: "/etc/opt/chrome/native-messaging-hosts" },
        mac: Folders { user: "Google/Chrome", system: "/Library/Google/Chrome/NativeMessagingHosts" },
        windows: r"Software\Google\Chrome",
    },
    Browser {
        name: "chromium",
        title: "Chromium",
        linux: Folders { user: "chromium", system: "/etc/chromium/native-messaging-hosts" },
        mac: Folders { user: "Chromium", system: "/Library/Application Support/Chromium/NativeMessagingHosts" },
        windows: r"Software\Chromium",
    },
    Browser {
        name: "edge",
        title: "Microsoft Edge",
        linux: Folders { user: "microsoft-edge", system: "/etc/opt/edge/native-messaging-hosts" },
        mac: Folders { user: "Microsoft Edge", system: "/Library/Microsoft/Edge/NativeMessagingHosts" },
        windows: r"Software\Microsoft\Edge",
    },
    Browser {
        name: "brave",
        title: "Brave",
        linux: Folders { user: "BraveSoftware/Brave-Browser", system: "/etc/opt/chrome/native-messaging-hosts" },
        mac: Folders {
            user: "BraveSoftware/Brave-Browser",
            system: "/Library/Application Support/BraveSoftware/Brave-Browser/NativeMessagingHosts",
        },
        windows: r"Software\BraveSoftware\Brave-Browser",
    },
    Browser {
        name: "vivaldi",
        title: "Vivaldi",
        linux: Folders { user: "vivaldi", system: "/etc/opt/chrome/native-messaging-hosts" },
        mac: Folders { user: "Vivaldi", system: "/Library/Application Support/Vivaldi/NativeMessagingHosts" },
        windows: r"Software\Vivaldi",
    },
];

impl Browser {
    /// The browser that `--browser` calls `name`.
    ///
    /// # Errors
    /// When there is none; the message lists all.
    pub fn by_name(name: &str) -> Result<&'static Self> {
        BROWSERS.iter().find(|browser| browser.name == name).ok_or_else(|| {
            let names = BROWSERS.map(|browser| browser.name).join(", ");
            HostError::Command(format!("there is no browser `{name}`; there are {names}"))
        })
    }

    /// Where it looks for our host.
    #[cfg(windows)]
    pub(crate) fn registration(&self, places: &Places, scope: Scope) -> Registration {
        let manifest = places.program_folder(scope).join(format!("{HOST_NAME}.json"));
        Registration { title: self.title, manifest, key: Some((scope, self.windows)) }
    }

    /// Where it looks for our host.
    #[cfg(not(windows))]
    pub(crate) fn registration(&self, places: &Places, scope: Scope) -> Registration {
        let (base, folders) = if cfg!(target_os = "macos") { (&places.data, &self.mac) } else { (&places.config, &self.linux) };
        match scope {
            Scope::User => in_data_folder(self.title, &base.join(folders.user)),
            Scope::System => Registration { title: self.title, manifest: Path::new(folders.system).join(format!("{HOST_NAME}.json")) },
        }
    }
}

/// Where a browser looks that keeps its data in `folder`.
pub(crate) fn in_data_folder(title: &'static str, folder: &Path) -> Registration {
    let manifest = folder.join("NativeMessagingHosts").join(format!("{HOST_NAME}.json"));
    Registration {
        title,
        manifest,
        #[cfg(windows)]
        key: None,
    }
}
