use proptest::prelude::*;

use super::*;

/// Name, version and "dev" of each.
fn listed(path: &str, text: &str) -> Vec<String> {
    let found = read(&path.parse().unwrap(), text).unwrap().unwrap();
    let line = |dependency: Dependency| {
        assert_eq!(dependency.source, path);
        let version = dependency.version.unwrap_or_else(|| "-".into());
        format!("{} {version}{}", dependency.name, if dependency.dev { " dev" } else { "" })
    };
    found.into_iter().map(line).collect()
}

const CARGO: &str = r#"
[package]
name = "x"
[dependencies]
serde = "1"
tokio = { version = "1.2", features = ["fs"] }
local = { path = "../local" }
renamed = { package = "real", version = "3" }
[dev-dependencies]
proptest = "1"
[target.'cfg(unix)'.dependencies]
libc = "0.2"
[workspace.dependencies]
shared = "9"
"#;

const CARGO_LOCK: &str = r#"
version = 4
[[package]]
name = "x"
version = "0.1.0"
[[package]]
name = "serde"
version = "1.0.200"
source = "registry+https://github.com/rust-lang/crates.io-index"
"#;

const PACKAGE: &str =
    r#"{"name": "x", "dependencies": {"react": "^18", "@a/b": "1"}, "devDependencies": {"jest": "29"}}"#;

const NPM_LOCK: &str = r#"{"lockfileVersion": 3, "packages": {"": {"name": "x"}, "packages/own": {"version": "1.0.0"},
    "node_modules/react": {"version": "18.2.0"}, "node_modules/a/node_modules/@s/b": {"version": "2.0.0", "dev": true}}}"#;

const OLD_NPM_LOCK: &str =
    r#"{"dependencies": {"a": {"version": "1.0.0", "dependencies": {"b": {"version": "2.0.0", "dev": true}}}}}"#;

const YARN: &str = "# yarn lockfile v1\n\n\"@babel/core@^7.0.0\", \"@babel/core@^7.1.0\":\n  version \"7.2.0\"\n  \
                    dependencies:\n    x \"1\"\n\nleft-pad@1:\n  version \"1.3.0\"\n";

const BERRY: &str = "__metadata:\n  version: 6\n\n\"lodash@npm:^4\":\n  version: 4.17.21\n  resolution: \"x\"\n\n\
                     \"own@workspace:.\":\n  version: 0.0.0-use.local\n";

const REQUIREMENTS: &str = "# comment\n-r other.txt\nrequests==2.31.0  # pinned\nflask[async]>=2,<3 ; python_version > '3'\n\
                            numpy\n./local\nhttps://example.com/x.whl\npkg @ https://example.com/p.zip\n\
                            hashed==1 --hash=sha256:00\n";

const PYPROJECT: &str = r#"
[project]
dependencies = ["requests>=2", "numpy"]
[project.optional-dependencies]
fast = ["cython (>=3)"]
[dependency-groups]
test = ["pytest~=8.0", {include-group = "x"}]
[tool.poetry.dependencies]
python = "^3.11"
django = "^5"
[tool.poetry.group.dev.dependencies]
black = { version = "24" }
"#;

const UV_LOCK: &str = r#"
version = 1
[[package]]
name = "own"
version = "0.1.0"
source = { editable = "." }
[[package]]
name = "idna"
version = "3.7"
source = { registry = "https://pypi.org/simple" }
"#;

const GO: &str = "module example.com/x\n\ngo 1.22\n\nrequire github.com/a/b v1.2.3\n\nrequire (\n\tgolang.org/x/text v0.14.0\n\
                  \tgopkg.in/yaml.v3 v3.0.1 // indirect\n)\n\nreplace github.com/a/b => ../b\n";

const POM: &str = r#"<?xml version="1.0"?>
<!DOCTYPE project [<!ENTITY x "y">]>
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <groupId>own</groupId><artifactId>own</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-api</artifactId><version>2.0.9</version>
      <exclusions><exclusion><groupId>not</groupId><artifactId>this</artifactId></exclusion></exclusions></dependency>
    <dependency><groupId>junit</groupId><artifactId>junit</artifactId><version>${junit.version}</version><scope>test</scope></dependency>
  </dependencies>
</project>"#;

const GRADLE: &str = "plugins { id 'java' }\ndependencies {\n    implementation 'com.google:guava:33.0'\n    \
                      testImplementation(\"org.junit:junit:5.1\")\n    api(\"a:b:$version\")\n    \
                      annotationProcessor \"c:d:1\"\n    // implementation 'not:this:1'\n}\n";

const GEMS: &str = "GEM\n  remote: https://rubygems.org/\n  specs:\n    rack (3.0.8)\n    rails (7.1.2)\n      rack (>= 2.2)\n\n\
                    PLATFORMS\n  ruby\n\nDEPENDENCIES\n  rails\n";

const ALL: &[(&str, &str)] = &[
    ("Cargo.toml", CARGO),
    ("a/Cargo.lock", CARGO_LOCK),
    ("package.json", PACKAGE),
    ("package-lock.json", NPM_LOCK),
    ("npm-shrinkwrap.json", OLD_NPM_LOCK),
    ("yarn.lock", YARN),
    ("requirements.txt", REQUIREMENTS),
    ("pyproject.toml", PYPROJECT),
    ("uv.lock", UV_LOCK),
    ("poetry.lock", UV_LOCK),
    ("go.mod", GO),
    ("pom.xml", POM),
    ("build.gradle", GRADLE),
    ("Gemfile.lock", GEMS),
];

#[test]
fn manifests_and_lock_files_are_read() {
    for (path, text, expected) in [
        (
            "Cargo.toml",
            CARGO,
            &["libc 0.2", "local -", "proptest 1 dev", "real 3", "serde 1", "shared 9", "tokio 1.2"][..],
        ),
        ("a/Cargo.lock", CARGO_LOCK, &["serde 1.0.200"]),
        ("package.json", PACKAGE, &["@a/b 1", "jest 29 dev", "react ^18"]),
        ("package-lock.json", NPM_LOCK, &["@s/b 2.0.0 dev", "react 18.2.0"]),
        ("npm-shrinkwrap.json", OLD_NPM_LOCK, &["a 1.0.0", "b 2.0.0 dev"]),
        ("yarn.lock", YARN, &["@babel/core 7.2.0", "left-pad 1.3.0"]),
        ("yarn.lock", BERRY, &["lodash 4.17.21"]),
        (
            "requirements.txt",
            REQUIREMENTS,
            &["flask >=2,<3", "hashed ==1", "numpy -", "pkg @ https://example.com/p.zip", "requests ==2.31.0"],
        ),
        ("requirements-dev.txt", "pytest==8\n", &["pytest ==8 dev"]),
        (
            "pyproject.toml",
            PYPROJECT,
            &["black 24 dev", "cython >=3", "django ^5", "numpy -", "pytest ~=8.0 dev", "requests >=2"],
        ),
        ("uv.lock", UV_LOCK, &["idna 3.7"]),
        ("go.mod", GO, &["github.com/a/b v1.2.3", "golang.org/x/text v0.14.0", "gopkg.in/yaml.v3 v3.0.1"]),
        ("pom.xml", POM, &["junit:junit - dev", "org.slf4j:slf4j-api 2.0.9"]),
        ("build.gradle", GRADLE, &["a:b -", "c:d 1", "com.google:guava 33.0", "org.junit:junit 5.1 dev"]),
        ("Gemfile.lock", GEMS, &["rack 3.0.8", "rails 7.1.2"]),
    ] {
        assert_eq!(listed(path, text), expected, "{path}");
    }
    assert!(read(&"README.md".parse().unwrap(), "").is_none());
}

#[test]
fn what_is_not_of_its_format_says_so() {
    for (path, text) in [
        ("Cargo.toml", "[dependencies"),
        ("Cargo.lock", "<xml/>"),
        ("package.json", "[1, 2]"),
        ("package.json", "{"),
        ("package-lock.json", "null"),
        ("yarn.lock", "no lock file"),
        ("go.mod", "hello"),
        ("pom.xml", "<project>"),
        ("pom.xml", "<a></b>"),
    ] {
        let read = read(&path.parse().unwrap(), text).unwrap();
        assert!(matches!(read, Err(Unreadable::Not(_))), "{path}: {read:?}");
    }
    // Deeper than anybody means.
    let deep = format!("{}{}", "<a>".repeat(100_000), "</a>".repeat(100_000));
    assert!(read(&"pom.xml".parse().unwrap(), &deep).unwrap().is_err());
    let deep = format!("{}{}", "{\"dependencies\":".repeat(100_000), "}".repeat(100_000));
    assert!(read(&"package-lock.json".parse().unwrap(), &deep).unwrap().is_err());
    let deep = format!("x = {}1{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(read(&"Cargo.toml".parse().unwrap(), &deep).unwrap().is_err());
}

#[test]
fn a_file_names_only_so_many_and_no_nonsense() {
    let many: String = (0..=MOST_DEPENDENCIES).map(|n| format!("p{n}\n")).collect();
    assert_eq!(read(&"requirements.txt".parse().unwrap(), &many).unwrap(), Err(Unreadable::TooMany));
    let long = "x".repeat(10_000);
    let text = format!(r#"{{"dependencies": {{"{long}": "1", "a b": "1", "": "1", "c\u0007": "1", "d": "{long}"}}}}"#);
    assert_eq!(listed("package.json", &text), ["d -"]);
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text: String, bytes: Vec<u8>) {
        for (path, _) in ALL {
            let path = path.parse().unwrap();
            let _ = read(&path, &text).unwrap();
            let _ = read(&path, &String::from_utf8_lossy(&bytes)).unwrap();
        }
    }

    #[test]
    fn damaged_files_are_read_or_refused(places: Vec<(u16, u8)>, cut: u16) {
        for (path, text) in ALL {
            let mut bytes = text.as_bytes().to_vec();
            for (place, byte) in &places {
                let length = bytes.len();
                bytes[usize::from(*place) % length] = *byte;
            }
            bytes.truncate(usize::from(cut) % bytes.len());
            let _ = read(&path.parse().unwrap(), &String::from_utf8_lossy(&bytes)).unwrap();
        }
    }
}
