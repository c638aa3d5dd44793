//! Where each browser of the Chromium family looks for native hosts: all that we know of browsers.
//!
//! From <https://developer.chrome.com/docs/extensions/develop/concepts/native-messaging> and
//! <https://learn.microsoft.com/microsoft-edge/extensions/developer-guide/native-messaging>; Brave and Vivaldi as traced on Linux.

use std::path::PathBuf;

use crate::HOST_NAME;
use crate::places::{Places, Scope};

/// A browser.
#[derive(Debug)]
pub struct Browser {
    /// What `--browser` calls it.
    pub name: &'static str,
    /// What its maker calls it.
    pub title: &'static str,
    /// Its folder in `~/.config`.
    linux: &'static str,
    /// The folder with hosts for all users.
    linux_system: &'static str,
    /// Its folder in `~/Library/Application Support`.
    mac: &'static str,
    /// The folder with hosts for all users.
    mac_system: &'static str,
    /// Its key in the registry.
    windows: &'static str,
}

/// All that we know. On Linux Brave and Vivaldi look for hosts of all users where Chrome does.
pub const BROWSERS: [Browser; 5] = [
    Browser {
        name: "chrome",
        title: "Google Chrome",
        linux: "google-chrome",
        linux_system: "/etc/opt/chrome/native-messaging-hosts",
        mac: "Google/Chrome",
        mac_system: "/Library/Google/Chrome/NativeMessagingHosts",
        windows: r"Software\Google\Chrome",
    },
    Browser {
        name: "chromium",
        title: "Chromium",
        linux: "chromium",
        linux_system: "/etc/chromium/native-messaging-hosts",
        mac: "Chromium",
        mac_system: "/Library/Application Support/Chromium/NativeMessagingHosts",
        windows: r"Software\Chromium",
    },
    Browser {
        name: "edge",
        title: "Microsoft Edge",
        linux: "microsoft-edge",
        linux_system: "/etc/opt/edge/native-messaging-hosts",
        mac: "Microsoft Edge",
        mac_system: "/Library/Microsoft/Edge/NativeMessagingHosts",
        windows: r"Software\Microsoft\Edge",
    },
    Browser {
        name: "brave",
        title: "Brave",
        linux: "BraveSoftware/Brave-Browser",
        linux_system: "/etc/opt/chrome/native-messaging-hosts",
        mac: "BraveSoftware/Brave-Browser",
        mac_system: "/Library/Application Support/BraveSoftware/Brave-Browser/NativeMessagingHosts",
        windows: r"Software\BraveSoftware\Brave-Browser",
    },
    Browser {
        name: "vivaldi",
        title: "Vivaldi",
        linux: "vivaldi",
        linux_system: "/etc/opt/chrome/native-messaging-hosts",
        mac: "Vivaldi",
        mac_system: "/Library/Application Support/Vivaldi/NativeMessagingHosts",
        windows: r"Software\Vivaldi",
    },
];
