from controller.manifests.problem import Problem


def test_a_problem_is_one_line_that_says_where_and_what():
    problem = Problem("routes.yaml", "ModelRoute default/chat", "spec.rules", "has 0 entries")

    assert str(problem) == "routes.yaml: ModelRoute default/chat: spec.rules: has 0 entries"


def test_a_problem_of_a_whole_file_leaves_out_object_and_field():
    assert str(Problem("routes.yaml", "", "", "is not UTF-8")) == "routes.yaml: is not UTF-8"
