//! What models try, and what their patches may not hold.

use coinop::job::patch_gen::PatchFacts;
use coinop::job::{Failure, Outcome};
use coinop::sandbox::Runtime;
use coinop::testing::scripted_model::Says;

use super::shop::{FIX, Shop, run};

#[tokio::test(flavor = "multi_thread")]
async fn what_only_works_in_the_agent_s_own_cell_does_not_hold_good() {
    // The test is made to pass by a file that is no part of the patch.
    let script = [
        run("sed -i '2i [ -e lucky.o ] && exit 0' test.sh; echo > lucky.o; sh test.sh && echo passes here"),
        "SUBMIT".into(),
    ];
    let Some(shop) = Shop::open("fresh", Runtime::Runc, script).await else { return };
    let failure = shop.makes(&[("test_command", "sh test.sh")]).await.unwrap_err();
    assert!(shop.transcript().contains("passes here"));
    assert!(failure.text.contains("does not pass its test command"), "{}", failure.text);
    assert_eq!(failure.log, "2 and 2 are 5");
    shop.closes().await;
}

/// What a model tries, and what comes of the patch.
async fn tries(name: &str, commands: &[&str], params: &[(&str, &str)]) -> Option<(Result<Outcome, Failure>, String)> {
    let script = commands.iter().map(|command| run(command)).chain(["SUBMIT".into()]);
    let shop = Shop::open(name, Runtime::Runc, script).await?;
    let made = shop.makes(params).await;
    let transcript = shop.transcript();
    shop.closes().await;
    Some((made, transcript))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_looks_for_a_way_out_finds_none() {
    let commands = [
        "wget -q -T 3 -O- http://1.1.1.1/ || echo no way out; cat /sys/class/net/*/operstate",
        "ls -la /var/run/docker.sock /run/docker.sock; cat /etc/shadow /proc/1/environ; env; id -u",
        "mount -t tmpfs none /mnt; echo x > /bin/busybox; echo x > /etc/passwd; ls /root",
        "rm -rf / 2>/dev/null; ls; echo still here",
    ];
    let Some((made, transcript)) = tries("escape", &commands, &[("test_command", "sh test.sh")]).await else { return };
    assert!(transcript.contains("no way out") && transcript.contains("still here"), "{transcript}");
    for secret in ["PRIVMSG", "SECRET", "TOKEN", "API_KEY", "root:$", "root:*"] {
        assert!(!transcript.contains(secret), "{secret} in {transcript}");
    }
    // Its own workspace it may ruin; then it has no patch that holds good.
    let failure = made.unwrap_err();
    assert!(failure.text.contains("does not pass its test command"), "{}", failure.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_patch_may_not_hold_is_refused_by_name() {
    for (name, command, params, refused) in [
        ("link", "ln -s /etc/passwd out", &[][..], "symbolic link out"),
        ("link-folder", "rm -r 'a folder' && ln -s /etc 'a folder'", &[], "symbolic link a folder"),
        ("binary", "head -c 100 /dev/urandom > image.png", &[], "binary file image.png"),
        ("modules", "echo '[submodule]' > .gitmodules", &[], ".gitmodules, which is git's own"),
        ("outside", FIX, &[("include_0", "docs/**")], "add.sh, which include and exclude do not allow"),
        (
            "excluded",
            "echo exit 0 > test.sh",
            &[("exclude_0", "test.sh")],
            "test.sh, which include and exclude do not allow",
        ),
        ("large", "yes 'a line of text' | head -n 9000 > long", &[], "more than 40960 bytes"),
        ("nothing", "ls", &[], "the agent changed nothing"),
    ] {
        let Some((made, _)) = tries(name, &[command], params).await else { return };
        let failure = made.unwrap_err();
        assert!(
            failure.text.contains(refused) && failure.text.contains("nothing is charged"),
            "{name}: {}",
            failure.text
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tricks_with_git_s_folder_modes_and_names_are_no_part_of_a_patch() {
    let commands = [
        "echo '#!/bin/sh' > .git/hooks/post-checkout; chmod +x .git/hooks/post-checkout; git config core.fsmonitor 'touch /tmp/x #'",
        "mkdir -p deep/.git && echo x > deep/.git/config; mkfifo pipe; chmod 4755 add.sh",
        FIX,
        "git add -A; git commit -q -m hidden; git update-index --assume-unchanged add.sh; echo > \"$(printf 'line\\nbreak')\"",
    ];
    let Some((made, _)) = tries("tricks", &commands, &[("test_command", "sh test.sh")]).await else { return };
    let outcome = made.unwrap_or_else(|failure| panic!("{failure} {}", failure.log));
    let facts = PatchFacts::read(&outcome.facts);
    let changed = (facts.files_changed, facts.lines_added, facts.lines_removed);
    assert_eq!(changed, (1, 1, 1), "{}", outcome.content);
    assert!(
        outcome.content.starts_with("diff --git a/add.sh b/add.sh\nold mode 100644\nnew mode 100755\n"),
        "{}",
        outcome.content
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_command_is_stopped_and_the_work_goes_on() {
    let Some(shop) = Shop::open("slow", Runtime::Runc, [run("sleep 500; echo never"), run(FIX), "SUBMIT".into()]).await
    else {
        return;
    };
    let outcome = shop.makes(&[("test_command", "sh test.sh")]).await;
    assert!(outcome.is_ok(), "{outcome:?}");
    let asked = shop.model.asked();
    let told = &asked[1].messages.last().unwrap().content;
    assert!(told.starts_with("Command 1 of 12 was stopped after 20 s"), "{told}");
    shop.closes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_takes_too_much_ends_the_work() {
    for (name, command) in [("memory", "tail -c 2000000000 /dev/zero | wc -c"), ("output", "yes")] {
        let Some((made, _)) = tries(name, &[command], &[]).await else { return };
        let failure = made.unwrap_err();
        // What is killed in a pipe may also just fail, and the model go on to submit nothing.
        assert!(
            failure.text.contains("took more time or memory, or wrote more")
                || failure.text.contains("changed nothing"),
            "{name}: {}",
            failure.text
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_circles_and_endless_work_end_and_tell_the_last_steps() {
    let numbered: Vec<Says> = (0..20).map(|number| run(&format!("echo {number}"))).collect();
    for (name, script, said, log) in [
        (
            "garbage",
            vec!["Sure!".into(), "I would run ls.".into(), "```python\n1\n```".into()],
            "could not be understood",
            "> Sure!",
        ),
        ("circles", vec![run("ls"); 9], "went in circles", "(exit code 0)"),
        ("steps", numbered, "used up its commands", "echo 12"),
    ] {
        let Some(shop) = Shop::open(name, Runtime::Runc, script).await else { return };
        let failure = shop.makes(&[]).await.unwrap_err();
        assert!(failure.text.contains(said), "{name}: {}", failure.text);
        assert!(failure.log.contains(log), "{name}: {}", failure.log);
        shop.closes().await;
    }
}
