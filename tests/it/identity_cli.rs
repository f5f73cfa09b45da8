//! `coinop init`, `identity`, `config` and `completions` as a script uses them: the real program in a folder of its own.

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use tempfile::TempDir;

const PASSWORD: &str = "orbit velvet tundra seven";
const WORDS: &str = "leader monkey parrot ring guide accident before fence cannon height naive bean";
const NPUB: &str = "npub1zutzeysacnf9rru6zqwmxd54mud0k44tst6l70ja5mhv8jjumytsd2x7nu";

/// A home folder, a password file, and nothing of the surrounding environment.
struct Home {
    folder: TempDir,
}

impl Home {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("pw"), format!("{PASSWORD}\n")).unwrap();
        fs::write(folder.path().join("words"), format!("{WORDS}\n")).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn home(&self) -> PathBuf {
        self.path("home")
    }

    fn bare(&self) -> Command {
        let mut command = Command::cargo_bin("coinop").unwrap();
        command.env_clear().arg("--home").arg(self.home());
        command
    }

    /// With the password at hand.
    fn coinop(&self) -> Command {
        let mut command = self.bare();
        command.arg("--password-file").arg(self.path("pw"));
        command
    }
}

struct Ended {
    code: i32,
    out: String,
    err: String,
}

fn run(command: &mut Command, args: &[&str]) -> Ended {
    let output = command.args(args).output().unwrap();
    Ended {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn init_without_a_terminal_makes_everything_and_says_what_is_next() {
    let home = Home::new();
    let words = home.path("words");
    let done = run(&mut home.coinop(), &["init", "--phrase-file", text(&words), "--free", "--backend", "echo"]);
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(done.out.contains(NPUB) && done.out.contains("37a28157"), "{}", done.out);
    assert!(done.out.contains("coinop serve"));

    let checked = run(&mut home.bare(), &["config", "check"]);
    assert_eq!(checked.code, 0, "{}", checked.err);
    assert!(checked.out.contains("ready to serve"), "{}", checked.out);

    let shown = run(&mut home.coinop(), &["identity", "show", "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown.out).unwrap();
    assert_eq!(shown["npub"], NPUB);
    assert_eq!(shown["wallet_fingerprint"], "37a28157");

    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(home.home().join("identity.keystore")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn init_refuses_a_second_time_and_never_touches_the_identity() {
    let home = Home::new();
    assert_eq!(run(&mut home.coinop(), &["init", "--yes"]).code, 0);
    let before = fs::read(home.home().join("identity.keystore")).unwrap();

    let again = run(&mut home.coinop(), &["init", "--yes"]);
    assert_eq!(again.code, 1);
    assert!(again.err.contains("help: ") && again.err.contains("--force"), "{}", again.err);

    let forced = run(&mut home.coinop(), &["init", "--yes", "--force"]);
    assert_eq!(forced.code, 0, "{}", forced.err);
    for args in [&["init", "--yes", "--force", "--words", "12"][..], &["identity", "new"], &["identity", "import"]] {
        let refused = run(&mut home.coinop(), args);
        assert_eq!(refused.code, 1, "{args:?}");
        assert!(refused.err.contains("never overwrites"), "{}", refused.err);
    }
    assert_eq!(fs::read(home.home().join("identity.keystore")).unwrap(), before);
}

#[test]
fn a_phrase_comes_from_standard_input_and_a_wrong_one_says_where() {
    let home = Home::new();
    let wrong = run(home.coinop().write_stdin(WORDS.replace("ring", "rinng")), &["identity", "import"]);
    assert_eq!(wrong.code, 1);
    assert!(wrong.err.contains("word 4 of 12") && !wrong.err.contains("rinng"), "{}", wrong.err);

    let swapped = run(home.coinop().write_stdin(WORDS.replace("ring guide", "guide ring")), &["identity", "import"]);
    assert!(swapped.err.contains("checksum"), "{}", swapped.err);
    assert!(!home.home().exists());

    let right = run(home.coinop().write_stdin(WORDS), &["identity", "import"]);
    assert_eq!(right.code, 0, "{}", right.err);
    assert!(right.out.contains(NPUB));
}

#[test]
fn a_passphrase_makes_another_identity() {
    let home = Home::new();
    fs::write(home.path("passphrase"), "hidden\n").unwrap();
    let (words, passphrase) = (home.path("words"), home.path("passphrase"));
    let args = ["identity", "import", "--phrase-file", text(&words), "--passphrase-file", text(&passphrase)];
    let made = run(&mut home.coinop(), &args);
    assert_eq!(made.code, 0, "{}", made.err);
    assert!(made.out.contains("npub1") && !made.out.contains(NPUB));
    let backup = run(&mut home.coinop(), &["identity", "backup", "--yes-show-my-words"]);
    assert!(backup.out.contains("passphrase") && !backup.out.contains("hidden"));
}

#[test]
fn the_words_go_to_no_pipe_unless_told_so() {
    let home = Home::new();
    let words = home.path("words");
    assert_eq!(run(&mut home.coinop(), &["identity", "import", "--phrase-file", text(&words)]).code, 0);
    let refused = run(&mut home.coinop(), &["identity", "backup"]);
    assert_eq!(refused.code, 2);
    assert!(!refused.out.contains("leader"));
    let told = run(&mut home.coinop(), &["identity", "backup", "--yes-show-my-words", "--json"]);
    let told: serde_json::Value = serde_json::from_str(&told.out).unwrap();
    assert_eq!(told["words"][0], "leader");
}

#[test]
fn the_password_comes_from_every_source_and_can_be_changed() {
    let home = Home::new();
    let words = home.path("words");
    assert_eq!(run(&mut home.coinop(), &["identity", "import", "--phrase-file", text(&words)]).code, 0);

    let variable = run(home.bare().env("COINOP_PASSWORD", PASSWORD), &["identity", "show"]);
    assert_eq!(variable.code, 0, "{}", variable.err);
    fs::create_dir(home.path("credentials")).unwrap();
    fs::write(home.path("credentials/coinop-password"), PASSWORD).unwrap();
    let credential = run(home.bare().env("CREDENTIALS_DIRECTORY", home.path("credentials")), &["identity", "show"]);
    assert_eq!(credential.code, 0, "{}", credential.err);
    let none = run(&mut home.bare(), &["identity", "show"]);
    assert_eq!(none.code, 2);
    assert!(none.err.contains("--password-file"), "{}", none.err);

    fs::write(home.path("new"), "copper lantern drifts north").unwrap();
    fs::write(home.path("weak"), "password1").unwrap();
    let (new, weak) = (home.path("new"), home.path("weak"));
    let refused = run(&mut home.coinop(), &["identity", "password", "--new-password-file", text(&weak)]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("too weak") && !refused.err.contains("password1"), "{}", refused.err);
    let changed = run(&mut home.coinop(), &["identity", "password", "--new-password-file", text(&new)]);
    assert_eq!(changed.code, 0, "{}", changed.err);

    let old = run(&mut home.coinop(), &["identity", "show"]);
    assert_eq!(old.code, 1);
    assert!(old.err.contains("the password does not open"), "{}", old.err);
    assert_eq!(run(home.bare().arg("--password-file").arg(&new), &["identity", "show"]).code, 0);
}

#[test]
fn a_damaged_keystore_is_told_apart_from_a_wrong_password() {
    let home = Home::new();
    assert_eq!(run(&mut home.coinop(), &["identity", "new", "--words", "24"]).code, 0);
    let path = home.home().join("identity.keystore");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let damaged = run(&mut home.coinop(), &["identity", "show"]);
    assert_eq!(damaged.code, 1);
    assert!(damaged.err.contains("is damaged") && damaged.err.contains("help: "), "{}", damaged.err);
}

#[test]
fn a_wrong_configuration_tells_every_mistake_and_repeats_no_secret() {
    let home = Home::new();
    fs::create_dir(home.home()).unwrap();
    let file = home.home().join("config.toml");
    fs::write(
        &file,
        "text.base = \"2\"\nlimits.retention = \"soon\"\nwallet.backend = \"nwc\"\n\
         wallet.nwc.connection = \"nostr+walletconnect://topsecret\"\n",
    )
    .unwrap();
    for args in [&["config", "check"][..], &["config", "show"], &["identity", "show"]] {
        let wrong = run(&mut home.coinop(), args);
        assert_eq!(wrong.code, 2, "{args:?}");
        for field in ["text.base", "limits.retention", "wallet.nwc.connection"] {
            assert!(wrong.err.contains(field), "{field} is not named: {}", wrong.err);
        }
        assert!(!wrong.err.contains("topsecret") && !wrong.out.contains("topsecret"));
    }
    let told = run(&mut home.bare(), &["config", "check", "--json"]);
    assert_eq!(told.code, 2);
    let told: serde_json::Value = serde_json::from_str(&told.out).unwrap();
    assert_eq!(told["problems"].as_array().unwrap().len(), 3);

    fs::write(&file, "[text]\n\nprize = 3\n").unwrap();
    let misspelled = run(&mut home.bare(), &["config", "check"]);
    assert_eq!(misspelled.code, 2);
    assert!(misspelled.err.contains("line 3") && misspelled.err.contains("prize"), "{}", misspelled.err);
}

#[test]
fn what_config_show_prints_is_a_configuration() {
    let home = Home::new();
    assert_eq!(run(&mut home.coinop(), &["init", "--yes", "--nwc", "env:MY_WALLET", "--base", "9sat"]).code, 0);
    let shown = run(&mut home.bare(), &["config", "show"]);
    assert_eq!(shown.code, 0, "{}", shown.err);
    assert!(shown.out.contains("env:MY_WALLET") && shown.out.contains("9sat"));
    fs::write(home.path("again.toml"), &shown.out).unwrap();
    let again = run(home.bare().arg("--config").arg(home.path("again.toml")), &["config", "check"]);
    assert_eq!(again.code, 0, "{}", again.err);
    assert!(again.out.contains("MY_WALLET is not set"), "{}", again.out);
}

#[test]
fn completions_and_help_work_for_every_shell() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = run(&mut home.bare(), &["completions", shell]);
        assert_eq!(script.code, 0);
        assert!(script.out.contains("identity"), "{shell}");
    }
    assert!(run(&mut home.bare(), &["--help"]).out.contains("Exit codes"));
    assert_eq!(run(&mut home.bare(), &["identity", "sell"]).code, 2);
}

#[test]
fn the_folder_is_named_by_a_variable_too_and_that_is_not_shown_as_typed() {
    let home = Home::new();
    let coinop = || {
        let mut command = Command::cargo_bin("coinop").unwrap();
        command.env_clear().env("COINOP_HOME", home.home()).env("COINOP_PASSWORD", PASSWORD);
        command
    };
    let made = run(&mut coinop(), &["identity", "new"]);
    assert_eq!(made.code, 0, "{}", made.err);
    assert!(home.home().join("identity.keystore").exists());
    let wrong = run(&mut coinop(), &["request", "sandbox"]);
    assert_eq!(wrong.code, 2);
    assert!(wrong.err.contains("--cmd <COMMAND>") && !wrong.err.contains("--home"), "{}", wrong.err);
}
