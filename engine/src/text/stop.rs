//! Stop strings: text at which generation ends.

/// Watches a stream of text for stop strings and passes on what can no longer become part of one.
///
/// The result does not depend on how the text is cut into pieces: the stop string that is complete first wins, the longest of those
/// that end together.
#[derive(Debug, Clone, Default)]
pub struct StopStrings {
    stops: Vec<String>,
    /// Text held back: the beginning of one or more stop strings.
    held: String,
    stopped: bool,
}

impl StopStrings {
    /// A matcher of these strings; empty ones are ignored.
    pub fn new(stops: impl IntoIterator<Item = String>) -> Self {
        Self { stops: stops.into_iter().filter(|s| !s.is_empty()).collect(), held: String::new(), stopped: false }
    }

    /// Takes the next piece of text. Gives the text to pass on (without the stop string and what follows it) and whether a stop
    /// string was found, now or earlier.
    pub fn push(&mut self, text: &str) -> (String, bool) {
        if self.stopped || self.stops.is_empty() {
            return (if self.stopped { String::new() } else { text.to_owned() }, self.stopped);
        }
        self.held.push_str(text);
        let first = self.stops.iter().filter_map(|s| self.held.find(s.as_str()).map(|start| (start + s.len(), start))).min();
        if let Some((_, start)) = first {
            self.stopped = true;
            self.held.truncate(start);
            return (std::mem::take(&mut self.held), true);
        }
        let keep = self.stops.iter().map(|s| overlap(&self.held, s)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// The text still held back, when the stream ends without a stop string.
    pub fn flush(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Length in bytes of the longest suffix of `text` that is a proper prefix of `stop`.
fn overlap(text: &str, stop: &str) -> usize {
    stop.char_indices().map(|(i, _)| i).rev().find(|&n| text.ends_with(&stop[..n])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::StopStrings;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut matcher = StopStrings::new(stops.iter().map(ToString::to_string));
        let mut out = String::new();
        let mut stopped = false;
        for piece in pieces {
            let (text, stop) = matcher.push(piece);
            assert!(!stopped || text.is_empty(), "text after the stop");
            out += &text;
            stopped = stop;
        }
        (out + &matcher.flush(), stopped)
    }

    /// Every way of cutting `text` at `cuts` (a bit per character boundary).
    fn pieces(text: &str, cuts: usize) -> Vec<&str> {
        let (mut out, mut start) = (Vec::new(), 0);
        for (n, (i, _)) in text.char_indices().skip(1).enumerate() {
            if cuts >> n & 1 == 1 {
                out.push(&text[start..i]);
                start = i;
            }
        }
        out.push(&text[start..]);
        out
    }

    #[test]
    fn stop_strings_result_is_independent_of_chunks() {
        let cases: [(&[&str], &str, &str, bool); 9] = [
            (&["END"], "say END now", "say ", true),
            (&["END"], "say EN", "say EN", false),
            (&["aab"], "aaaab!", "aa", true),
            (&["abc!", "b"], "xabc!", "xa", true),
            (&["bc", "abc"], "xabcd", "x", true),
            (&["\n\n", "\nUser:"], "a\nUser: b", "a", true),
            (&["🚀é"], "go 🚀é.", "go ", true),
            (&["🚀é"], "go 🚀e.", "go 🚀e.", false),
            (&["", "x"], "abc", "abc", false),
        ];
        for (stops, text, want, stopped) in cases {
            for cuts in 0..1 << (text.chars().count() - 1) {
                assert_eq!(run(stops, &pieces(text, cuts)), (want.to_owned(), stopped), "{stops:?} {:?}", pieces(text, cuts));
            }
        }
    }

    #[test]
    fn stop_strings_delay_only_possible_stops() {
        let mut matcher = StopStrings::new(["<stop>".to_owned()]);
        assert_eq!(matcher.push("a < b <st"), ("a < b ".to_owned(), false));
        assert_eq!(matcher.push("r"), ("<str".to_owned(), false));
        assert_eq!(matcher.flush(), "");
    }
}
