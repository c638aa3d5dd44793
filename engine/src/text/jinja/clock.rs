//! `strftime_now`: Python's `datetime.now().strftime`, in English, of a time without a zone.

use std::fmt::Write;

use super::args::failed;
use super::python::Result;

/// Bytes of a format; what it gives is at most a few times as long.
const MAX_FORMAT: usize = 1024;
const MAX_WIDTH: usize = 256;

const MONTHS: [&str; 12] =
    ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// A time of day of a civil date.
struct Moment {
    seconds: u64,
    year: i64,
    month: u32,
    day: u32,
    /// From 0.
    day_of_year: i64,
    /// From Sunday, 0.
    weekday: i64,
    hour: u64,
    minute: u64,
    second: u64,
}

/// How a number is filled: `%d`, `%-d`, `%_d`, `%03d`; and `%^a`.
#[derive(Clone, Copy, Default)]
struct Flags {
    pad: Option<char>,
    upper: bool,
    swap: bool,
    width: Option<usize>,
}

/// `strftime` of a local time in seconds since 1970.
pub(super) fn strftime(format: &str, seconds: u64) -> Result<String> {
    if format.len() > MAX_FORMAT {
        return Err(failed(format!("strftime_now takes formats up to {MAX_FORMAT} bytes")));
    }
    Moment::new(seconds).format(format)
}

impl Moment {
    fn new(seconds: u64) -> Self {
        let days = (seconds / 86_400) as i64;
        let (year, month, day) = civil(days);
        let second = seconds % 86_400;
        Self {
            seconds,
            year,
            month,
            day,
            day_of_year: days - day_number(year),
            weekday: (days + 4).rem_euclid(7),
            hour: second / 3600,
            minute: second / 60 % 60,
            second: second % 60,
        }
    }

    fn format(&self, format: &str) -> Result<String> {
        let mut out = String::new();
        let mut rest = format;
        while let Some(at) = rest.find('%') {
            out.push_str(&rest[..at]);
            let directive = &rest[at..];
            let mut chars = directive[1..].chars().peekable();
            let mut flags = Flags::default();
            while let Some(flag) = chars.next_if(|c| "-_0^#".contains(*c)) {
                match flag {
                    '^' => flags.upper = true,
                    '#' => flags.swap = true,
                    pad => flags.pad = Some(pad),
                }
            }
            while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
                flags.width = Some((flags.width.unwrap_or(0) * 10 + digit as usize).min(MAX_WIDTH));
                chars.next();
            }
            chars.next_if(|c| "EO".contains(*c));
            let text = match chars.next() {
                Some(c) => self.directive(c, flags)?,
                None => None,
            };
            let left = chars.map(char::len_utf8).sum::<usize>();
            let written = &directive[..directive.len() - left];
            out.push_str(text.as_deref().unwrap_or(written));
            rest = &directive[written.len()..];
        }
        Ok(out + rest)
    }

    /// The text of one directive; `None` for one that C does not know, which stays as it is.
    fn directive(&self, directive: char, flags: Flags) -> Result<Option<String>> {
        let name = |text: &str| Ok(Some(flags.text(text)));
        let number = |n: i64, width: usize, pad: char| Ok(Some(flags.number(n, width, pad)));
        let composed = |format: &str| Ok(Some(flags.text(&self.format(format)?)));
        let twelve = (self.hour + 11) % 12 + 1;
        let (iso_year, iso_week) = self.iso_week();
        let month = MONTHS[self.month as usize - 1];
        let weekday = DAYS[self.weekday as usize];
        match directive {
            'a' => name(&weekday[..3]),
            'A' => name(weekday),
            'b' | 'h' => name(&month[..3]),
            'B' => name(month),
            'c' => composed("%a %b %e %H:%M:%S %Y"),
            'C' => number(self.year.div_euclid(100), 2, '0'),
            'd' => number(self.day.into(), 2, '0'),
            'D' | 'x' => composed("%m/%d/%y"),
            'e' => number(self.day.into(), 2, ' '),
            'f' => Ok(Some("000000".to_owned())),
            'F' => composed("%Y-%m-%d"),
            'g' => number(iso_year.rem_euclid(100), 2, '0'),
            'G' => number(iso_year, 1, '0'),
            'H' => number(self.hour as i64, 2, '0'),
            'I' => number(twelve as i64, 2, '0'),
            'j' => number(self.day_of_year + 1, 3, '0'),
            'k' => number(self.hour as i64, 2, ' '),
            'l' => number(twelve as i64, 2, ' '),
            'm' => number(self.month.into(), 2, '0'),
            'M' => number(self.minute as i64, 2, '0'),
            'n' => name("\n"),
            'p' => name(if self.hour < 12 { "AM" } else { "PM" }),
            'P' => name(if self.hour < 12 { "am" } else { "pm" }),
            'r' => composed("%I:%M:%S %p"),
            'R' => composed("%H:%M"),
            's' => number(self.seconds as i64, 1, '0'),
            'S' => number(self.second as i64, 2, '0'),
            't' => name("\t"),
            'T' | 'X' => composed("%H:%M:%S"),
            'u' => number((self.weekday + 6) % 7 + 1, 1, '0'),
            'U' => number((self.day_of_year + 7 - self.weekday) / 7, 2, '0'),
            'V' => number(iso_week, 2, '0'),
            'w' => number(self.weekday, 1, '0'),
            'W' => number((self.day_of_year + 7 - (self.weekday + 6) % 7) / 7, 2, '0'),
            'y' => number(self.year.rem_euclid(100), 2, '0'),
            'Y' => number(self.year, 1, '0'),
            'z' | 'Z' => name(""),
            '%' => name("%"),
            _ => Ok(None),
        }
    }

    /// Year and week of ISO 8601: week 1 has the year's first Thursday.
    fn iso_week(&self) -> (i64, i64) {
        let thursday = day_number(self.year) + self.day_of_year + 3 - (self.weekday + 6) % 7;
        let year = civil(thursday).0;
        (year, (thursday - day_number(year)) / 7 + 1)
    }
}

impl Flags {
    fn text(self, text: &str) -> String {
        let text = match text {
            text if self.swap && text.chars().all(char::is_uppercase) => text.to_lowercase(),
            text if self.upper || self.swap => text.to_uppercase(),
            text => text.to_owned(),
        };
        let width = self.width.unwrap_or(0);
        if self.pad == Some('0') { format!("{text:0>width$}") } else { format!("{text:>width$}") }
    }

    fn number(self, n: i64, width: usize, pad: char) -> String {
        let width = self.width.unwrap_or(width);
        let mut out = String::new();
        let _ = match self.pad.unwrap_or(pad) {
            '-' => write!(out, "{n}"),
            '0' => write!(out, "{n:0width$}"),
            _ => write!(out, "{n:width$}"),
        };
        out
    }
}

/// Days from 1970 to the beginning of `year`.
fn day_number(year: i64) -> i64 {
    let y = year - 1;
    365 * (year - 1970) + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) - 477
}

/// (year, month, day) of a day counted from 1970-01-01.
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn civil(days: i64) -> (i64, u32, u32) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153; // March is 0
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month as u32, day as u32)
}
