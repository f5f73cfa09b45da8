use super::*;

#[test]
fn the_diff_of_a_pull_request_lies_behind_its_address() {
    for (url, diff) in [
        ("https://github.com/a/b/pull/7", "https://github.com/a/b/pull/7.diff"),
        (" https://github.com/a/b/pull/7/files?w=1#r1 ", "https://github.com/a/b/pull/7.diff"),
        ("https://gitlab.com/a/b/-/merge_requests/7/", "https://gitlab.com/a/b/-/merge_requests/7.diff"),
        ("https://codeberg.org/a/b/pulls/7.patch", "https://codeberg.org/a/b/pulls/7.patch"),
    ] {
        assert_eq!(diff_address(url).as_deref(), Some(diff));
    }
    for none in ["", "7", "ftp://x/7", "https://github.com", "file:///etc/passwd"] {
        assert_eq!(diff_address(none), None, "{none}");
    }
}

fn snapshot(files: &[(&str, &[u8])]) -> Snapshot {
    let files = files.iter().map(|(path, content)| (path.parse().unwrap(), content.to_vec()));
    Snapshot::of_files("0123456789012345678901234567890123456789".parse().unwrap(), files.collect())
}

const LIMITS: PatchLimits = PatchLimits { bytes: 2_000, files: 5 };

#[test]
fn what_differs_between_two_commits_is_read_back_as_a_diff() {
    let before = snapshot(&[("a", b"1\n2\n"), ("b", b"same"), ("c", b"gone\n"), ("i \"q\".png", b"\0one")]);
    let afterwards = snapshot(&[("a", b"1\n3\n"), ("b", b"same"), ("d", b"new\n"), ("i \"q\".png", b"\0two")]);
    let diff = diff_between(Some(&before), &afterwards, LIMITS).unwrap();
    let files = read(&diff, DiffLimits { bytes: 10_000, files: 10 }).unwrap();
    let names: Vec<(&str, bool)> = files.iter().map(|file| (file.path().as_str(), file.binary)).collect();
    assert_eq!(names, [("a", false), ("c", false), ("d", false), ("i \"q\".png", true)]);
    // The first commit of all.
    let all = read(&diff_between(None, &afterwards, LIMITS).unwrap(), DiffLimits { bytes: 10_000, files: 10 }).unwrap();
    assert!(all.iter().all(|file| file.old.is_none() || file.binary));
}

#[test]
fn a_change_of_nothing_or_of_too_much_is_refused() {
    let one = snapshot(&[("a", b"1")]);
    assert!(diff_between(Some(&one), &one, LIMITS).unwrap_err().text.contains("nothing differs"));
    let large = snapshot(&[("a", "x\n".repeat(2_000).as_bytes())]);
    assert!(diff_between(Some(&one), &large, LIMITS).unwrap_err().text.contains("more than 2000 bytes"));
    let many = snapshot(&[("1", b"1"), ("2", b"2"), ("3", b"3"), ("4", b"4"), ("5", b"5"), ("6", b"6")]);
    assert!(diff_between(None, &many, LIMITS).unwrap_err().text.contains("more than 5 files"));
    // Bytes nobody could read are told as such, and not looked at.
    let huge = snapshot(&[("blob", &vec![b'x'; 200_000])]);
    assert!(diff_between(Some(&one), &huge, LIMITS).unwrap().contains("GIT binary patch"));
}
