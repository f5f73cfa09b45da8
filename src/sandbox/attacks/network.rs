//! Anybody to talk to.

use tokio::net::TcpListener;

use super::*;

attacks! {
    nobody_can_be_reached
    there_is_no_network_to_look_at
}

async fn nobody_can_be_reached(runtime: Runtime) {
    let Some(scene) = Scene::open(runtime).await else { return };
    // Would hear whoever gets out.
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let hosts = ["127.0.0.1", "172.17.0.1", "10.0.0.1", "192.168.0.1", "host.docker.internal", "localhost"];
    let mut shell = String::new();
    for host in hosts {
        shell.push_str(&format!("echo hello | nc -w 2 {host} {port} && echo reached {host}\n"));
    }
    shell.push_str("wget -T 2 -q -O - http://169.254.169.254/latest/meta-data && echo reached the metadata\n");
    shell.push_str("wget -T 2 -q -O - http://127.0.0.1:2375/version && echo reached the engine\n");
    shell.push_str("nslookup example.com 8.8.8.8 >/dev/null && echo reached a name server\n");
    shell.push_str("ping -c 1 -W 1 127.0.0.1 >/dev/null && ping -c 1 -W 1 8.8.8.8 && echo reached the world\ntrue");
    let ran = scene.run(&shell).await;
    assert_eq!(ran.stdout.text, "");
    let heard = tokio::time::timeout(Duration::ZERO, listener.accept()).await;
    assert!(heard.is_err(), "somebody got out");
    scene.close().await;
}

async fn there_is_no_network_to_look_at(runtime: Runtime) {
    let Some(scene) = Scene::open(runtime).await else { return };
    let ran = scene.run("tail -n +3 /proc/net/dev | cut -d: -f1; tail -n +2 /proc/net/route; hostname").await;
    let names: Vec<&str> = ran.stdout.text.split_whitespace().collect();
    assert!(names == ["lo", "cell"] || names == ["cell"], "{}", ran.stdout.text);
    scene.close().await;
}
