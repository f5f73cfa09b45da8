//! How tables and times look.

use comfy_table::{ContentArrangement, Table, TableComponent, presets};
use jiff::Timestamp;

/// An empty table with these headings.
pub fn new<const N: usize>(headings: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(headings);
    // A line under the headings and none elsewhere: easy on the eye, and on grep.
    table.set_style(TableComponent::HeaderLines, '─').set_style(TableComponent::MiddleHeaderIntersections, '─');
    table
}

/// A time for people: UTC, to the second.
pub fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_time_is_shown_in_utc_to_the_second() {
        assert_eq!(super::time(jiff::Timestamp::UNIX_EPOCH), "1970-01-01 00:00:00");
    }
}
