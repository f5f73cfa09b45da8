//! Stop strings over a stream of text pieces.
//!
//! Why our own: mistral.rs looks for a stop string one token late, streams it, and misses one that begins inside a
//! token; other servers differ in whether the stop string itself is part of the answer. Here it never is.

/// Cuts a stream of text at the first stop string, holding back what might still become one.
///
/// The stop string that is complete first wins; of several that end together, the one that begins first. So the result
/// doesn't depend on how the text was cut into pieces.
#[derive(Debug)]
pub struct StopFilter {
    stops: Vec<String>,
    held: String,
    stopped: bool,
}

/// What may be shown after a piece was added.
#[derive(Debug, PartialEq, Eq)]
pub struct Passed {
    /// New text, free of stop strings. Often empty.
    pub text: String,
    /// Whether a stop string was found: the answer ends here.
    pub stopped: bool,
}

impl StopFilter {
    /// A filter for these stop strings; empty ones are ignored.
    pub fn new(stops: &[String]) -> Self {
        let stops = stops.iter().filter(|stop| !stop.is_empty()).cloned().collect();
        Self { stops, held: String::new(), stopped: false }
    }

    /// Adds a piece. After a stop string nothing passes any more.
    pub fn push(&mut self, piece: &str) -> Passed {
        if self.stopped {
            return Passed { text: String::new(), stopped: true };
        }
        self.held.push_str(piece);
        let first = self
            .stops
            .iter()
            .filter_map(|stop| self.held.find(stop.as_str()).map(|start| (start + stop.len(), start)))
            .min();
        if let Some((_, start)) = first {
            self.stopped = true;
            self.held.truncate(start);
            return Passed { text: std::mem::take(&mut self.held), stopped: true };
        }
        let kept = self.held.split_off(self.held.len() - self.longest_beginning());
        Passed { text: std::mem::replace(&mut self.held, kept), stopped: false }
    }

    /// The text still held back: at the end of the answer it was no stop string after all.
    pub fn finish(self) -> String {
        self.held
    }

    /// How many bytes at the end of the held text are the beginning of a stop string.
    fn longest_beginning(&self) -> usize {
        let beginning = |stop: &String| {
            let most = self.held.len().min(stop.len() - 1);
            (1..=most).rev().find(|&size| stop.is_char_boundary(size) && self.held.ends_with(&stop[..size]))
        };
        self.stops.iter().filter_map(beginning).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
        let mut filter = StopFilter::new(&stops);
        let mut text = String::new();
        for piece in pieces {
            let passed = filter.push(piece);
            text.push_str(&passed.text);
            if passed.stopped {
                return (text, true);
            }
        }
        (text + &filter.finish(), false)
    }

    #[test]
    fn a_stop_string_ends_the_text_and_is_not_part_of_it() {
        assert_eq!(run(&["END"], &["a E", "N", "D b"]), ("a ".into(), true));
        assert_eq!(run(&["END"], &["END"]), (String::new(), true));
        assert_eq!(run(&["b"], &["abc"]), ("a".into(), true));
    }

    #[test]
    fn a_beginning_that_comes_to_nothing_is_shown() {
        assert_eq!(run(&["END"], &["a EN", "T"]), ("a ENT".into(), false));
        assert_eq!(run(&["END"], &["a EN"]), ("a EN".into(), false));
        assert_eq!(run(&["ababc"], &["aba", "babd"]), ("abababd".into(), false));
    }

    #[test]
    fn text_without_a_beginning_is_not_held_back() {
        let mut filter = StopFilter::new(&["\n\n".to_owned()]);
        assert_eq!(filter.push("intros; lia."), Passed { text: "intros; lia.".into(), stopped: false });
        assert_eq!(filter.push("\n"), Passed { text: String::new(), stopped: false });
    }

    proptest! {
        #[test]
        fn the_cut_does_not_depend_on_the_pieces(
            text in "[abé]{0,24}",
            stops in prop::collection::vec("[abé]{1,4}", 0..4),
        ) {
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let letters: Vec<String> = text.chars().map(String::from).collect();
            let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
            prop_assert_eq!(run(&stops, &[&text]), run(&stops, &letters));
        }

        #[test]
        fn no_stop_string_is_ever_shown(text in "[ab]{0,24}", stop in "[ab]{1,4}") {
            let (shown, stopped) = run(&[&stop], &[&text]);
            prop_assert!(!shown.contains(&stop));
            prop_assert_eq!(stopped, text.contains(&stop));
        }
    }
}
