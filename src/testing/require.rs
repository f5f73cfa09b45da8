//! Tests that need a program of the machine: left out where it is not there, unless somebody says that they must not be.

/// What must not be left out, separated by commas.
const REQUIRED: &str = "COINOP_TEST_REQUIRE";

/// Whether tests that need `name` must run.
pub fn required(name: &str) -> bool {
    std::env::var(REQUIRED).is_ok_and(|list| list.split(',').any(|word| word.trim() == name))
}

/// Says that a test is left out because there is no `name`, and `how` to get one.
///
/// # Panics
/// When it must not be left out.
pub fn skip(name: &str, how: &str) {
    assert!(!required(name), "there is no {name}, and {REQUIRED} names it: {how}");
    eprintln!("skipped: there is no {name}: {how}");
}
