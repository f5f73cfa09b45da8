//! Tests that need something of the machine: a program, a server. Where it is missing they are skipped and say so, and
//! where it is required its absence is a failure, so that a build that means to test it can't forget to.

/// Names what must not be skipped, separated by commas, such as `bitcoind` or `docker`; `docs/testing.md` lists them.
const REQUIRED: &str = "COINOP_TEST_REQUIRE";

/// Whether tests that need `name` must run here.
pub fn required(name: &str) -> bool {
    std::env::var(REQUIRED).is_ok_and(|names| lists(&names, name))
}

/// Says that a test is skipped for want of `name`, and `how` to run it.
///
/// # Panics
/// When it is required.
pub fn skip(name: &str, how: &str) {
    assert!(!required(name), "{REQUIRED} asks for {name}, which is not there: {how}");
    eprintln!("skipped: there is no {name} here; {how}");
}

fn lists(names: &str, name: &str) -> bool {
    names.split(',').any(|word| word.trim() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_required_is_read_word_by_word() {
        assert!(lists("bitcoind, ollama", "ollama"));
        assert!(!lists("ollama-next", "ollama"));
        assert!(!lists("", "ollama"));
    }
}
