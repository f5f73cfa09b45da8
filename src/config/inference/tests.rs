//! What can be written below `[inference]`, and what is said about mistakes in it.

use std::path::Path;

use super::*;
use crate::config::{Config, ConfigError, Paths, Problem, RawConfig};
use crate::money::Msat;

fn resolve(text: &str) -> Result<Config, ConfigError> {
    let paths = Paths::find(Some(Path::new("/srv/dvm")), None).unwrap();
    Config::resolve(&RawConfig::parse(text, Path::new("config.toml"))?, &paths)
}

fn problems(text: &str) -> Vec<Problem> {
    match resolve(text) {
        Ok(_) => Vec::new(),
        Err(ConfigError::Invalid { problems, .. }) => problems,
        Err(other) => panic!("{other}"),
    }
}

/// The only problem of an endpoint or a model, by its key.
fn the_problem(list: &str, written: &str) -> Problem {
    let text = format!("[[inference.{list}]]\n{written}\n");
    let mut found = problems(&text);
    assert_eq!(found.len(), 1, "{text}: {found:?}");
    let mut found = found.remove(0);
    let prefix = format!("inference.{list}[0].");
    found.field = found.field.strip_prefix(&prefix).unwrap_or_else(|| panic!("{}", found.field)).to_owned();
    assert!(!found.what.is_empty() && !found.cure.is_empty());
    found
}

#[test]
fn what_was_written_before_there_were_endpoints_means_one_endpoint() {
    let config = resolve("inference = { backend = \"mistralrs\", model = \"m.gguf\", context = 4096 }").unwrap();
    let auto = resolve("inference = { model = \"m.gguf\", context = 4096 }").unwrap();
    assert_eq!(config.inference.endpoints, auto.inference.endpoints);
    let [endpoint] = &config.inference.endpoints[..] else { panic!("one endpoint") };
    assert_eq!((endpoint.name.as_str(), endpoint.field("model")), ("mistralrs", "inference.model".into()));
    let BackendSettings::MistralRs(model) = &endpoint.backend else { panic!("{endpoint:?}") };
    assert_eq!((model.model.as_path(), model.model_name.as_str()), (Path::new("/srv/dvm/m.gguf"), "m"));
    let echo = resolve("inference.backend = \"echo\"").unwrap().inference;
    assert_eq!(echo.endpoints[0].backend, BackendSettings::Echo);
    let folder = resolve("inference.model = \"models/Qwen3-0.6B\"").unwrap().inference;
    assert_eq!(folder.endpoints[0].named_models(), ["Qwen3-0.6B"], "a folder of safetensors keeps its whole name");
}

#[test]
fn endpoints_and_models_are_read_as_they_are_written() {
    let config = resolve(
        r#"
        [[inference.endpoints]]
        backend = "ollama"
        url = "http://127.0.0.1:11434"
        slots = 4
        [[inference.endpoints]]
        name = "rack"
        backend = "openai"
        url = "https://gpu.example/v1"
        key = "env:RACK_KEY"
        parameters = 70553706496
        json = "schema"
        bytes_per_token = 3
        [[inference.models]]
        name = "big"
        upstream = "meta/llama-70b"
        aliases = ["llama"]
        endpoints = ["rack"]
        base = "5sat"
        max_output_tokens = 8192
        digest = "sha256:0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef"
        at_once = 16
        "#,
    )
    .unwrap();
    let [ollama, rack] = &config.inference.endpoints[..] else { panic!("two endpoints") };
    assert_eq!((ollama.name.as_str(), rack.name.as_str()), ("ollama", "rack"));
    let BackendSettings::OpenAi(rack) = &rack.backend else { panic!("{rack:?}") };
    assert_eq!((rack.parameters, rack.json, rack.bytes_per_token), (Some(70_553_706_496), JsonAnswers::Schema, 3));
    let model = config.inference.model("llama").unwrap();
    assert_eq!((model.name.as_str(), model.upstream.as_str(), model.at_once), ("big", "meta/llama-70b", Some(16)));
    let rates = model.rates.unwrap();
    assert_eq!((rates.base, rates.per_1k_generated), (Msat::sat(5), config.text.rates.per_1k_generated));
    assert!(model.digest.as_ref().unwrap().ends_with("abcdef"));
    let missing: Vec<_> = config.missing_to_serve().into_iter().map(|problem| problem.field).collect();
    assert_eq!(missing, ["inference.endpoints[1].key", "wallet.backend"]);
}

#[test]
fn a_wrong_endpoint_is_named_with_its_key_and_cure() {
    let secret = "sk-abcdef";
    for (written, key, words) in [
        ("name = \"x\"", "backend", "is not named"),
        ("backend = \"vllm\"", "backend", "'vllm'"),
        ("backend = \"ollama\"", "url", "http://127.0.0.1:11434"),
        ("backend = \"ollama\"\nurl = \"ftp://x\"", "url", "http"),
        ("backend = \"ollama\"\nurl = \"http://x/v1\"", "url", "write \"http://x\""),
        ("backend = \"ollama\"\nurl = \"http://x/ollama/api/\"", "url", "write \"http://x/ollama\""),
        ("backend = \"llamacpp\"\nurl = \"http://x/v1/\"", "url", "ends in /v1"),
        ("backend = \"llamacpp\"\nurl = \"http://x\"\nmodels = [\"m\"]", "models", "model_name"),
        ("backend = \"llamacpp\"\nurl = \"http://x\"\nbytes_per_token = 2", "bytes_per_token", "no such key"),
        ("backend = \"openai\"\nurl = \"http://x\"", "url", "http://x/v1"),
        ("backend = \"openai\"\nurl = \"http://x/v1/chat/completions\"", "url", "write \"http://x/v1\""),
        ("backend = \"openai\"\nurl = \"http://x/v1?a=b\"", "url", "query"),
        ("backend = \"openai\"\nurl = \"http://x/v1\"\nkey = \"sk-abcdef\"", "key", "env:NAME"),
        ("backend = \"openai\"\nurl = \"http://api.example/v1\"\nkey = \"env:K\"", "url", "in the clear"),
        ("backend = \"openai\"\nurl = \"http://93.184.216.34/v1\"\nkey = \"env:K\"", "url", "in the clear"),
        ("backend = \"openai\"\nurl = \"http://x/v1\"\njson = \"yes\"", "json", "none"),
        ("backend = \"openai\"\nurl = \"http://x/v1\"\nbytes_per_token = 9", "bytes_per_token", "1 to 8"),
        ("backend = \"openai\"\nurl = \"http://x/v1\"\nparameters = 7", "parameters", "exact number"),
        ("backend = \"openai\"\nurl = \"http://x/v1\"\nmodels = [\"m\", \"m\"]", "models", "twice"),
        ("backend = \"openai\"\nurl = \"http://x/v1\"\nembeddings = [\"m\", \"m\"]", "embeddings", "twice"),
        (
            "backend = \"ollama\"\nurl = \"http://x\"\nmodels = [\"m\"]\nembeddings = [\"m:latest\"]",
            "embeddings",
            "or embeddings",
        ),
        ("backend = \"llamacpp\"\nurl = \"http://x\"\nembeddings = [\"m\"]", "embeddings", "no such key"),
        ("backend = \"openai\"\nurl = \"http://x/v1\"\nslots = 20000", "slots", "out of bounds"),
        ("backend = \"mistralrs\"", "model", "no model is named"),
        ("backend = \"mistralrs\"\nmodel = \"m.safetensors\"", "model", "GGUF file"),
        ("backend = \"mistralrs\"\nmodel = \"m.gguf\"\nurl = \"http://x\"", "url", "chat_template"),
        ("backend = \"mistralrs\"\nmodel = \"m.gguf\"\nchat_template = \"x.txt\"", "chat_template", ".jinja"),
        ("backend = \"mistralrs\"\nmodel = \"m.gguf\"\ncontext = 256", "context", "no room for a prompt"),
        ("backend = \"echo\"\ncontext = 9999", "context", "no such key"),
    ] {
        let found = the_problem("endpoints", written);
        assert_eq!(found.field, key, "{written}");
        let said = found.to_string();
        assert!(said.contains(words), "{written}: {said}");
        assert!(!said.contains(secret), "{said}");
    }
    for private in ["localhost:1", "gpu", "gpu.lan:8000", "192.168.1.5", "[fd00::1]:80"] {
        let text =
            format!("[[inference.endpoints]]\nbackend = \"openai\"\nurl = \"http://{private}/v1\"\nkey = \"env:K\"");
        assert_eq!(problems(&text), [], "{private}");
    }
}

#[test]
fn a_wrong_model_is_named_with_its_key_and_cure() {
    for (written, key, words) in [
        ("upstream = \"x\"", "name", "what customers call it"),
        ("name = \"m\"\naliases = [\"m\"]", "aliases", "inference.models[0].name"),
        ("name = \"m\"\nendpoints = [\"rack\"]", "endpoints", "there is no endpoint 'rack'"),
        ("name = \"m\"\nbase = \"5\"", "base", "with its unit"),
        ("name = \"m\"\nper_1k_prompt = \"much\"", "per_1k_prompt", "with its unit"),
        ("name = \"m\"\nper_1k_generated = \"-1sat\"", "per_1k_generated", "no amount"),
        ("name = \"m\"\ndigest = \"sha256:12\"", "digest", "64 hexadecimal digits"),
        ("name = \"m\"\ndigest = \"md5:12\"", "digest", "64 hexadecimal digits"),
        ("name = \"m\"\nparameters = 8", "parameters", "exact number"),
        ("name = \"m\"\ncontext = 512", "context", "no room for a prompt"),
        ("name = \"m\"\nat_once = 10001", "at_once", "out of bounds"),
        ("name = \"m\"\nmax_output_tokens = 4000000000", "max_output_tokens", "out of bounds"),
    ] {
        let found = the_problem("models", written);
        assert_eq!(found.field, key, "{written}");
        assert!(found.to_string().contains(words), "{written}: {found}");
    }
}

#[test]
fn names_are_given_once_and_one_way_of_writing_is_chosen() {
    let fields = |text: &str| problems(text).into_iter().map(|problem| problem.field).collect::<Vec<_>>();
    let ollama = "[[inference.endpoints]]\nbackend = \"ollama\"\nurl = \"http://x\"\n";
    assert_eq!(fields(&format!("{ollama}{ollama}")), ["inference.endpoints[1].name", "inference.endpoints[1].url"]);
    let again = "[[inference.endpoints]]\nname = \"b\"\nbackend = \"ollama\"\nurl = \"HTTP://X:80/\"\n";
    assert_eq!(fields(&format!("{ollama}{again}")), ["inference.endpoints[1].url"], "one server is one endpoint");
    assert_eq!(fields(&format!("{ollama}{again}key = \"env:K\"")), [""; 0], "another account of it is another");
    assert_eq!(
        fields("[[inference.endpoints]]\n[[inference.endpoints]]\n"),
        ["inference.endpoints[0].backend", "inference.endpoints[1].backend"]
    );
    let listed = format!("{ollama}models = [\"a:latest\"]\n[[inference.models]]\nname = ");
    assert_eq!(fields(&format!("{listed}\"a\"")), [""; 0]);
    assert_eq!(fields(&format!("{listed}\"b\"")), ["inference.models[0].name"]);
    assert_eq!(fields(&format!("{listed}\"a\"\nupstream = \"c\"")), ["inference.models[0].upstream"]);
    let embeds = format!("{ollama}embeddings = [\"a\"]\n[[inference.models]]\nname = ");
    assert_eq!(fields(&format!("{embeds}\"a\"")), ["inference.models[0].name"], "it makes no text");
    assert_eq!(fields(&format!("{embeds}\"b\"")), [""; 0]);
    let models = "[[inference.models]]\nname = \"a\"\naliases = [\"b\"]\n[[inference.models]]\nname = \"b\"\n";
    assert_eq!(fields(models), ["inference.models[1].name"]);
    assert_eq!(
        fields(&format!("[inference]\nbackend = \"echo\"\nmodel = \"m.gguf\"\n{ollama}")),
        ["inference.backend", "inference.model"]
    );
    let unknown = format!("{ollama}[[inference.models]]\nname = \"a\"\nendpoints = [\"ollama\", \"rack\"]\n");
    assert_eq!(fields(&unknown), ["inference.models[0].endpoints"]);
    assert_eq!(fields("[inference]\nbackend = \"mistralrs\""), ["inference.model"]);
    assert_eq!(fields("inference.probe = [\"127.0.0.1\"]"), ["inference.probe"]);
}

#[test]
fn a_price_of_a_models_own_counts_for_nothing_when_all_work_is_free() {
    let config = resolve("text.terms = \"free\"\n[[inference.models]]\nname = \"m\"\nbase = \"5sat\"").unwrap();
    assert_eq!(config.inference.models[0].rates, None);
}

#[test]
fn a_folder_of_safetensors_is_a_model_and_any_other_folder_is_named_with_the_cure() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("Qwen3-0.6B");
    std::fs::create_dir(&folder).unwrap();
    let config = resolve(&format!("inference.model = '{}'\ntext.terms = \"free\"", folder.display())).unwrap();
    let of_the_model = || {
        let missing = config.missing_to_serve().into_iter();
        missing.filter(|problem| problem.field == "inference.model").collect::<Vec<_>>()
    };
    let [no_model] = &of_the_model()[..] else { panic!("{:?}", config.missing_to_serve()) };
    assert!(no_model.what.contains("no config.json") && no_model.cure.contains("GGUF"), "{no_model}");
    std::fs::write(folder.join("config.json"), "{}").unwrap();
    assert_eq!(of_the_model(), []);
}

#[test]
fn nothing_to_do_the_work_and_nowhere_to_look_is_missing_to_serve() {
    let config = resolve("inference.probe = []\ntext.terms = \"free\"").unwrap();
    let missing = config.missing_to_serve();
    assert_eq!(missing.len(), 1);
    assert_eq!(missing[0].field, "inference.model");
}
