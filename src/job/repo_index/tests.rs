use serde_json::json;

use super::super::{Code, Input, JobKind, Params};
use super::*;
use crate::testing::requests;

fn request(inputs: Vec<Input>, params: &[(&str, &str)]) -> JobRequest {
    let mut list = Params::default();
    params.iter().for_each(|(key, value)| list.push(key, vec![(*value).to_owned()]));
    JobRequest { inputs, params: list, ..requests::blank(JobKind::RepoIndex) }
}

fn input(data: &str, kind: InputKind, marker: Option<&str>) -> Input {
    Input { data: data.to_owned(), kind, relay: None, marker: marker.map(str::to_owned) }
}

fn parse(params: &[(&str, &str)]) -> Result<RepoIndex, String> {
    let repository = input("https://example.com/a.git", InputKind::Url, Some("repo"));
    RepoIndex::parse(&request(vec![repository], params), &RepoIndexLimits::default()).map_err(|refusal| refusal.text)
}

#[test]
fn a_request_without_wishes_gets_the_symbols_of_what_its_authors_wrote() {
    let asked = parse(&[]).unwrap();
    assert_eq!(asked.repository.url, "https://example.com/a.git");
    assert_eq!(asked.types, IndexTypes { symbols: true, ..IndexTypes::default() });
    assert_eq!(asked.max_file_bytes, 1_048_576);
    let globs = asked.globs().unwrap();
    for (path, meant) in [
        ("src/lib.rs", true),
        ("target/debug/x", false),
        ("a/node_modules/b/c.js", false),
        ("vendor/x.go", false),
        ("vendors/x.go", true),
    ] {
        assert_eq!(globs.allow(&path.parse().unwrap()), meant, "{path}");
    }
}

#[test]
fn lists_are_read_in_every_spelling() {
    for params in [
        &[("index_type_0", "digests"), ("index_type_1", "dependencies")][..],
        &[("index_type", "digests"), ("index-type", "Dependencies")],
        &[("index_types", "digests, dependencies")],
    ] {
        let types = parse(params).unwrap().types;
        let wanted = IndexTypes { digests: true, dependencies: true, ..IndexTypes::default() };
        assert_eq!(types, wanted, "{params:?}");
    }
    let asked = parse(&[
        ("include_1", "docs/**"),
        ("include_0", "src/**/*.rs"),
        ("exclude", "**/old"),
        ("repo_ref", "v1"),
        ("max-file-size", "4096"),
        ("embedding_model", "nomic"),
    ])
    .unwrap();
    assert_eq!((asked.include, asked.exclude), (vec!["src/**/*.rs".into(), "docs/**".into()], vec!["**/old".into()]));
    assert_eq!((asked.repository.reference.as_deref(), asked.max_file_bytes), (Some("v1"), 4_096));
    assert_eq!(asked.embedding_model.as_deref(), Some("nomic"));
}

#[test]
fn all_means_embeddings_where_there_are_some_and_their_name_means_them() {
    let all = parse(&[("index_type", "all")]).unwrap().types;
    assert!(all.symbols && all.digests && all.dependencies);
    assert_eq!(all.embeddings, Wanted::IfOffered);
    for params in [
        [("index_type_0", "all"), ("index_type_1", "embeddings")],
        [("index_type_0", "embeddings"), ("index_type_1", "all")],
    ] {
        assert_eq!(parse(&params).unwrap().types.embeddings, Wanted::Yes);
    }
}

#[test]
fn what_is_wrong_is_refused_by_name() {
    let long = "x".repeat(300);
    for (params, named) in [
        (&[("index_type", "vectors")][..], &["param index_type", "'vectors'", "symbols, digests"][..]),
        (&[("index_type_3", "")], &["param index_type_3", "no value"]),
        (&[("max_file_size", "0")], &["param max_file_size", "from 1 to 4194304"]),
        (&[("max_file_size", "9999999999")], &["param max_file_size", "above this provider's limit", "4194304 bytes"]),
        (&[("include_0", "../x")], &["param include", "'../x'"]),
        (&[("exclude", "[a")], &["param exclude", "'[a'"]),
        (&[("include", long.as_str())], &["param include", "300 bytes"]),
        (&[("git_ref", "-x")], &["param git_ref"]),
        (&[("embedding_model", long.as_str())], &["param embedding_model"]),
    ] {
        let text = parse(params).unwrap_err();
        named.iter().for_each(|name| assert!(text.contains(name), "'{text}' does not say '{name}'"));
    }
    let many: Vec<_> = (0..65).map(|n| (format!("include_{n}"), "a")).collect();
    let many: Vec<_> = many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    assert!(parse(&many).unwrap_err().contains("at most 64"));
}

#[test]
fn one_repository_is_indexed_and_nothing_else() {
    let limits = RepoIndexLimits::default();
    let repository = || input("https://example.com/a.git", InputKind::Url, Some("repo"));
    for (inputs, said) in [
        (vec![], "names no repository"),
        (vec![input("index this", InputKind::Text, None)], "names no repository"),
        (vec![repository(), input("more", InputKind::Text, None)], "input 2 (text)"),
        (vec![repository(), repository()], "a second repository"),
        (vec![input("", InputKind::Url, Some("repo"))], "must be an address"),
    ] {
        let text = RepoIndex::parse(&request(inputs, &[]), &limits).unwrap_err().text;
        assert!(text.contains(said), "{text}");
    }
    let mut other = request(vec![repository()], &[]);
    other.output = Some("text/plain".to_owned());
    let refusal = RepoIndex::parse(&other, &limits).unwrap_err();
    assert_eq!(refusal.code, Code::Unsupported);
    other.output = Some("application/json; charset=utf-8".to_owned());
    assert!(RepoIndex::parse(&other, &limits).is_ok());
}

#[test]
fn a_result_holds_only_the_indexes_that_were_asked_for() {
    let result = RepoIndexResult {
        commit: "c".repeat(40),
        tree_sha256: "0".repeat(64),
        indexes: Indexes {
            symbols: Some(vec![Symbol {
                name: "main".into(),
                kind: SymbolKind::Function,
                path: "src/main.rs".into(),
                line: 1,
                column: 4,
                signature: Some("fn main()".into()),
                documentation: None,
            }]),
            ..Indexes::default()
        },
        files_indexed: 1,
        bytes_processed: 13,
        tokens_processed: 0,
        duration_ms: 5,
        truncated: false,
        errors: Vec::new(),
    };
    let json = serde_json::to_value(&result).unwrap();
    let symbol = json!({"name": "main", "kind": "function", "path": "src/main.rs", "line": 1, "column": 4,
        "signature": "fn main()"});
    assert_eq!(json["indexes"], json!({ "symbols": [symbol] }));
    assert_eq!(serde_json::from_value::<RepoIndexResult>(json).unwrap(), result);
}
