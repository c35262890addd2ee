from moorage.agent.uplink.tunnel import TunnelEnd


def test_the_address_is_read_whenever_it_is_asked_for(tmp_path):
    file = tmp_path / "address"
    end = TunnelEnd(file)
    assert end.present == "http://127.0.0.1:0"
    file.write_text("http://127.0.0.1:4000 1000\n")
    assert (end.present, end.owner) == ("http://127.0.0.1:4000", 1000)
    assert end.known == ("http://127.0.0.1:4000",)
    file.write_text("http://127.0.0.1:4001\n")
    assert (end.present, end.owner) == ("http://127.0.0.1:4001", None)


def test_other_addresses_are_of_no_use(tmp_path):
    file = tmp_path / "address"
    file.write_text("http://127.0.0.1:4000 1000\n")
    end = TunnelEnd(file)
    end.learn(["http://10.0.0.1:1"])
    end.next()
    assert end.follow("http://10.0.0.1:1") is False
    assert end.known == ("http://127.0.0.1:4000",)


def test_what_is_no_loopback_address_is_none(tmp_path):
    file = tmp_path / "address"
    for wrong in ("http://10.0.0.1:80 0", "", "http://127.0.0.1:1 root", "\n\n"):
        file.write_text(wrong)
        assert TunnelEnd(file).present == "http://127.0.0.1:0"
