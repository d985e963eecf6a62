use super::*;

fn environment(pairs: &[(&str, &str)]) -> Environment {
    Environment(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
}

fn parse(text: &str, pairs: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let faults = |faults: Vec<Fault>| faults.into_iter().map(|fault| format!("{}: {}", fault.field, fault.message));
    Config::parse(Some(text), &environment(pairs)).map_err(|found| faults(found).collect())
}

#[test]
fn the_defaults_are_valid_and_those_of_the_contract() {
    let config = Config::parse(None, &Environment::default()).unwrap();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.tiers.limits("basic").llm_tokens_day, Limit::AtMost(50_000));
    assert_eq!(config.tiers.limits("free_trial").memory_storage_bytes, Limit::AtMost(1 << 30));
    assert_eq!(config.tiers.limits("pro").agent_minutes_month, Limit::Unlimited);
    assert_eq!(config.memory.stm_ttl_ms, Some(86_400_000));
    assert_eq!(config.memory.ltm_ttl_ms, None);
}

#[test]
fn every_fault_is_named_at_once() {
    let text =
        "[server]\nlisten = 'nowhere'\ncolour = 'red'\n[tiers.basic]\nllm_tokens_day = -2\n[quota]\ntimezone = 'Mars'";
    let faults = parse(text, &[("TALLYBOX_SERVER__NOPE", "1"), ("TALLYBOX_STORE__READERS", "x")]).unwrap_err();
    for field in [
        "server.listen",
        "server.colour",
        "tiers.basic.llm_tokens_day",
        "quota.timezone",
        "TALLYBOX_SERVER__NOPE",
        "TALLYBOX_STORE__READERS",
    ] {
        assert!(faults.iter().any(|fault| fault.starts_with(field)), "{field} is missing in {faults:?}");
    }
    assert_eq!(faults.len(), 6, "{faults:?}");
}

#[test]
fn what_may_not_be_empty_and_a_section_in_one_variable_are_refused() {
    for (name, value) in
        [("TALLYBOX_QUOTA__TIMEZONE", " "), ("TALLYBOX_SERVER__LISTEN", ""), ("TALLYBOX_GATEWAY__ALIASES", "{a = 'm'}")]
    {
        assert_eq!(parse("", &[(name, value)]).unwrap_err().len(), 1, "{name}");
    }
    let remote = "[embedding]\nprovider = 'openai'\nmodel = 'm'\nurl = 'https://user:secret@host/v1'";
    assert!(parse(remote, &[]).unwrap_err()[0].starts_with("embedding.url"));
}

#[test]
fn the_environment_wins_over_the_file_and_the_originals_variables_work() {
    let config = parse(
        "[tiers.basic]\nllm_tokens_day = 7\n[tiers.team]\nllm_tokens_day = 1\nmemory_storage_bytes = 2\nagent_minutes_month = 3",
        &[
            ("TALLYBOX_TIERS__BASIC__LLM_TOKENS_DAY", "8"),
            ("FREE_TIER_TOKENS_DAY", "9"),
            ("BASIC_TIER_MEMORY_GB", "0.5"),
            ("PRO_TIER_MEMORY_GB", "2"),
            ("TALLYBOX_AUTH__IDENTITY_PROXIES", "127.0.0.1, 10.0.0.0/8"),
            ("TALLYBOX_MEMORY__STM_TTL", "2"),
            ("TALLYBOX_SOMETHING", "ignored"),
        ],
    )
    .unwrap();
    assert_eq!(config.tiers.limits("basic").llm_tokens_day, Limit::AtMost(8));
    assert_eq!(config.tiers.limits("team").agent_minutes_month, Limit::AtMost(3));
    assert_eq!(config.tiers.limits("free_trial").llm_tokens_day, Limit::AtMost(9));
    assert_eq!(config.tiers.limits("basic").memory_storage_bytes, Limit::AtMost(1 << 29));
    assert_eq!(config.tiers.limits("pro").memory_storage_bytes, Limit::AtMost(2 << 30));
    assert_eq!(config.memory.stm_ttl_ms, Some(2_000));
    assert!(config.auth.identity_proxies.contain("10.1.2.3".parse().unwrap()));
    assert!(config.auth.identity_proxies.contain("::ffff:127.0.0.1".parse().unwrap()));
    assert!(!config.auth.identity_proxies.contain("11.0.0.1".parse().unwrap()));
}

#[test]
fn a_variable_finds_what_the_file_names_in_letters_of_any_case() {
    let config = parse(
        &format!(
            "[tiers.Gold]\nllm_tokens_day = 1\nmemory_storage_bytes = 2\nagent_minutes_month = 3\n\
             [tiers.two__words]\nllm_tokens_day = 1\nmemory_storage_bytes = 2\nagent_minutes_month = 3\n\
             [gateway.aliases]\nFast = 'gpt-4o'\n{UPSTREAM}"
        ),
        &[
            ("TALLYBOX_TIERS__GOLD__LLM_TOKENS_DAY", "7"),
            ("TALLYBOX_TIERS__TWO__WORDS__AGENT_MINUTES_MONTH", "8"),
            ("TALLYBOX_GATEWAY__ALIASES__FAST", "gpt-5"),
        ],
    );
    let config = config.unwrap();
    assert_eq!(config.tiers.limits("Gold").llm_tokens_day, Limit::AtMost(7));
    assert_eq!(config.tiers.limits("two__words").agent_minutes_month, Limit::AtMost(8));
    assert!(!config.tiers.has("gold"));
    assert_eq!(config.gateway.routes.resolve("Fast"), "gpt-5");
    for unknown in ["TALLYBOX_TIERS__SOME__WORDS__LLM_TOKENS_DAY", "TALLYBOX_GATEWAY__ALIASES__SLOW"] {
        assert!(parse("", &[(unknown, "1")]).unwrap_err()[0].starts_with(unknown));
    }
}

#[test]
fn secrets_are_masked_and_never_given_twice() {
    let config = parse("[embedding]\napi_key = 'sk-secret'", &[]).unwrap();
    assert!(!config.to_masked_toml().contains("sk-secret"));
    let twice = parse("[embedding]\napi_key = 'a'\napi_key_file = '/b'", &[]).unwrap_err();
    assert!(twice[0].contains("together"), "{twice:?}");
}

#[test]
fn secrets_come_from_files_as_well() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "sk-of-a-file\nmore").unwrap();
    let path = file.path().to_str().unwrap();
    let remote = "[embedding]\nprovider = 'openai'\nurl = 'http://b/v1'\nmodel = 'm'";
    let config = parse(remote, &[("TALLYBOX_EMBEDDING__API_KEY_FILE", path)]).unwrap();
    let Provider::OpenAi { api_key, .. } = &config.embedding.provider else { panic!("{:?}", config.embedding) };
    assert_eq!(api_key.as_ref().map(Secret::expose), Some("sk-of-a-file"));
    let config = parse(&format!("{UPSTREAM}api_key_file = '{path}'"), &[]).unwrap();
    assert_eq!(config.gateway.upstreams[0].api_key.as_ref().unwrap().expose(), "sk-of-a-file");
    let bootstrap = environment(&[("TALLYBOX_ADMIN_EMAIL", "a@b"), ("TALLYBOX_ADMIN_PASSWORD_FILE", path)]);
    assert_eq!(admin_bootstrap(&bootstrap).unwrap(), Some(("a@b".to_owned(), "sk-of-a-file".to_owned())));
    std::fs::write(file.path(), "").unwrap();
    let faults = parse(remote, &[("TALLYBOX_EMBEDDING__API_KEY_FILE", path)]).unwrap_err();
    assert!(faults[0].contains("embedding.api_key_file") && faults[0].contains("holds nothing"), "{faults:?}");
}

#[test]
fn the_bootstrap_needs_both_halves() {
    assert!(admin_bootstrap(&environment(&[("TALLYBOX_ADMIN_EMAIL", "a@b")])).is_err());
    let both = environment(&[("TALLYBOX_ADMIN_EMAIL", "a@b"), ("TALLYBOX_ADMIN_PASSWORD", "secret")]);
    assert_eq!(admin_bootstrap(&both).unwrap(), Some(("a@b".to_owned(), "secret".to_owned())));
}

const UPSTREAM: &str = "[[gateway.upstreams]]\nname = 'a'\nbase_url = 'https://a.example/v1/'\nmodels = ['gpt-*']\n";

#[test]
fn upstreams_are_read_with_what_they_do_not_say() {
    let config =
        parse(&format!("[gateway.aliases]\nfast = 'gpt-4o'\n{UPSTREAM}api_key_env = 'KEY'"), &[("KEY", "sk-secret")]);
    let config = config.unwrap();
    let [upstream] = config.gateway.upstreams.as_slice() else { panic!("{:?}", config.gateway) };
    assert_eq!(
        (upstream.base_url.as_str(), upstream.timeout_ms, upstream.max_concurrent),
        ("https://a.example/v1", 120_000, 256)
    );
    assert_eq!(upstream.api_key.as_ref().unwrap().expose(), "sk-secret");
    assert_eq!(config.gateway.routes.candidates(config.gateway.routes.resolve("fast")), [0]);
    assert_eq!((config.gateway.output.default, config.gateway.output.min), (4_096, 16));
    let direct = parse(&format!("{UPSTREAM}api_key = 'sk-secret'"), &[]).unwrap();
    for shown in [format!("{config:?}"), format!("{direct:?}"), direct.to_masked_toml()] {
        assert!(!shown.contains("sk-secret"), "{shown}");
    }
    let by_environment = "[{ name = 'a', base_url = 'http://b', models = ['*'] }]";
    let config = parse("", &[("TALLYBOX_GATEWAY__UPSTREAMS", by_environment)]).unwrap();
    assert_eq!(config.gateway.upstreams.len(), 1);
}

#[test]
fn an_authority_of_ones_own_must_be_one() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for (text, why) in [
        ("", "must hold at least one certificate, in PEM"),
        ("no certificate", "must hold at least one certificate, in PEM"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "holds what is no certificate"),
        ("-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----\n", "is no PEM file"),
    ] {
        std::fs::write(file.path(), text).unwrap();
        let faults = parse(&format!("{UPSTREAM}ca_file = '{}'", file.path().display()), &[]).unwrap_err();
        let [fault] = faults.as_slice() else { panic!("{faults:?}") };
        assert!(fault.starts_with("gateway.upstreams[0].ca_file") && fault.contains(why), "{fault}");
    }
}

#[test]
fn every_fault_of_an_upstream_is_named_at_once() {
    let text = format!(
        "[gateway]\nimage_tokens_max = 0\n[gateway.aliases]\nfast = 5\n{UPSTREAM}api_key = 'a'\napi_key_env = 'B'\n{UPSTREAM}\
         [[gateway.upstreams]]\nname = ''\nbase_url = 'ftp://x'\nmodels = []\ntimeout = 'long'\nmax_concurrent = 0\ncolour = 1\napi_key_env = 'NOT_SET'\n\
         ca_file = '/nowhere/ca.pem'"
    );
    let faults = parse(&text, &[]).unwrap_err();
    for field in [
        "gateway.image_tokens_max",
        "gateway.aliases.fast",
        "gateway.upstreams[0].api_key_env",
        "gateway.upstreams[1].name",
        "gateway.upstreams[2].name",
        "gateway.upstreams[2].base_url",
        "gateway.upstreams[2].models",
        "gateway.upstreams[2].timeout",
        "gateway.upstreams[2].max_concurrent",
        "gateway.upstreams[2].colour",
        "gateway.upstreams[2].api_key_env",
        "gateway.upstreams[2].ca_file",
    ] {
        assert!(faults.iter().any(|fault| fault.starts_with(field)), "{field} is missing in {faults:?}");
    }
    assert_eq!(faults.len(), 12, "{faults:?}");
    assert!(parse("[gateway]\nupstreams = ['a']", &[]).is_err());
}
