use proptest::prelude::*;

use super::super::{Code, Input, JobKind, Params};
use super::*;
use crate::testing::requests;

fn request(inputs: Vec<Input>, params: &[(&str, &[&str])]) -> JobRequest {
    let mut list = Params::default();
    for (key, values) in params {
        list.push(key, values.iter().map(|value| (*value).to_owned()).collect());
    }
    JobRequest { inputs, params: list, ..requests::blank(JobKind::SandboxRun) }
}

fn url(data: &str, marker: Option<&str>) -> Input {
    Input { data: data.to_owned(), kind: InputKind::Url, relay: None, marker: marker.map(str::to_owned) }
}

fn listed(params: &[(&str, &[&str])]) -> Result<Vec<String>, String> {
    let request = request(Vec::new(), params);
    let list = Reader::new(&request).list(&["cmd", "command"], 4).map_err(|refusal| refusal.text)?;
    Ok(list.into_iter().map(|(_, value)| value.to_owned()).collect())
}

#[test]
fn a_list_is_in_the_order_of_its_numbers_and_then_as_it_stands() {
    let numbers: &[(&str, &[&str])] = &[("cmd", &["d"]), ("cmd_10", &["b"]), ("Cmd-2", &["a"]), ("command", &["e"])];
    assert_eq!(listed(numbers).unwrap(), ["a", "b", "d", "e"]);
    assert_eq!(listed(&[("cmd", &["a", "b"]), ("cmd", &["c"])]).unwrap(), ["a", "b", "c"]);
    assert_eq!(listed(&[("cmds", &["x"]), ("cmd_", &["x"]), ("cmd_x", &["x"]), ("acmd", &["x"])]).unwrap(), [""; 0]);
}

#[test]
fn numbers_only_order_a_list_however_large_they_are() {
    assert_eq!(listed(&[("cmd_4294967295", &["b"]), ("cmd_0007", &["a"])]).unwrap(), ["a", "b"]);
    assert_eq!(listed(&[("cmd_18446744073709551615", &["b"]), ("cmd_0", &["a"])]).unwrap(), ["a", "b"]);
    assert!(listed(&[("cmd_18446744073709551616", &["b"])]).unwrap_err().contains("count from 0"));
}

#[test]
fn what_is_wrong_with_a_list_is_said_by_name() {
    let twice = listed(&[("cmd_1", &["a"]), ("command_01", &["b"])]).unwrap_err();
    assert!(twice.starts_with("param command_01:") && twice.contains("the number 1 is used twice"), "{twice}");
    assert!(listed(&[("cmd", &["a", " "])]).unwrap_err().starts_with("param cmd has no value"));
    assert!(listed(&[("cmd_0", &["a", "b"])]).unwrap_err().starts_with("param cmd_0: it has 2 values"));
    let many = listed(&[("cmd", &["a"; 5])]).unwrap_err();
    assert_eq!(many, "param cmd: more than 4 entries; this provider takes at most 4: send fewer");
}

#[test]
fn numbers_have_a_name_a_range_and_a_limit() {
    let read = |value: &str| {
        let request = request(Vec::new(), &[("timeout_secs", &[value])]);
        let bound = Bound { default: Duration::from_secs(5), max: Duration::from_secs(600) };
        Reader::new(&request).seconds(&["max_time_secs", "timeout_secs"], bound).map_err(|refusal| refusal.text)
    };
    assert_eq!(read(" 600 ").unwrap(), Some(Duration::from_secs(600)));
    let above = "param timeout_secs: 900 is above this provider's limit: ask for at most 600 s";
    assert_eq!(read("900").unwrap_err(), above);
    for junk in ["0", "-1", "1.5", "ten", "1e2", "99999999999999999999999", "0x10"] {
        let text = read(junk).unwrap_err();
        assert!(text.starts_with("param timeout_secs: '") && text.contains("a whole number from 1 to 600"), "{text}");
    }
    assert!(read(" ").unwrap_err().contains("has no value"));
    assert_eq!(Bound { default: 9, max: 4 }.usual(), 4);
}

#[test]
fn a_job_has_one_repository_at_one_commit() {
    let read = |inputs: Vec<Input>, params: &[(&str, &[&str])]| {
        let request = request(inputs, params);
        Reader::new(&request).repository().map_err(|refusal| {
            assert_eq!(refusal.code, Code::BadRequest);
            refusal.text
        })
    };
    let at = |reference: Option<&str>| AskedRepository {
        url: "https://a.example/r".into(),
        reference: reference.map(str::to_owned),
    };
    assert_eq!(read(vec![], &[]).unwrap(), None);
    assert_eq!(read(vec![url("https://a.example/r", Some("repo"))], &[]).unwrap(), Some(at(None)));
    let branch: &[(&str, &[&str])] = &[("repo-ref", &["main"])];
    assert_eq!(read(vec![url(" https://a.example/r ", None)], branch).unwrap(), Some(at(Some("main"))));
    // An input for something else is none of ours.
    assert_eq!(read(vec![url("https://a.example/pull/1", Some("pr"))], &[]).unwrap(), None);
    assert!(read(vec![], branch).unwrap_err().starts_with("param repo_ref: there is no repository"));
    let two = vec![url("https://a.example/r", None), url("https://b.example/r", Some("repo"))];
    assert!(read(two, &[]).unwrap_err().starts_with("input 2 (url)"));
    for junk in ["--upload-pack=x", "a b", "a\nb"] {
        let text = read(vec![url("https://a.example/r", None)], &[("git_ref", &[junk])]).unwrap_err();
        assert!(text.starts_with("param git_ref: '"), "{text}");
    }
    let long = "x".repeat(LONGEST_REFERENCE_BYTES + 1);
    assert!(read(vec![url("https://a.example/r", None)], &[("git_ref", &[&long])]).unwrap_err().contains("shorten"));
    let far = format!("https://a.example/{}", "x".repeat(LONGEST_URL_BYTES));
    assert!(read(vec![url(&far, None)], &[]).unwrap_err().starts_with("input 1 (url): it must be an address"));
}

#[test]
fn truth_has_more_than_one_spelling() {
    let read = |value: &str| {
        let request = request(Vec::new(), &[("flag", &[value])]);
        Reader::new(&request).flag(&["flag"]).map_err(|refusal| refusal.text)
    };
    assert_eq!((read("TRUE").unwrap(), read("0").unwrap()), (Some(true), Some(false)));
    assert!(read("maybe").unwrap_err().contains("true or false"));
}

proptest! {
    #[test]
    fn whatever_the_keys_are_nothing_panics(keys in proptest::collection::vec("(cmd|command)?_?[0-9a-z_]{0,24}", 0..40)) {
        let params: Vec<(&str, &[&str])> = keys.iter().map(|key| (key.as_str(), &["x"][..])).collect();
        let request = request(Vec::new(), &params);
        let _ = Reader::new(&request).list(&["cmd", "command"], 16);
    }
}
